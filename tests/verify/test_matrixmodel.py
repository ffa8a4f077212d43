"""Verdicts of the matrix, and what names a result."""

from __future__ import annotations

import msgspec
import pytest

from retrograde.verify.matrixhtml import page
from retrograde.verify.matrixmodel import CHECKS, Cell, Check, Subject


def check(name, outcome="ok", text="fine", evidence=""):
    return Check(name=name, outcome=outcome, text=text, evidence=evidence)


def cell(*checks, **more):
    return Cell(target="m68k", board="virt", checks=list(checks), **more)


ALL = tuple(map(check, CHECKS))


@pytest.mark.parametrize(
    ("tried", "verdict", "sentence"),
    [
        (cell(*ALL), "works", "works"),
        (cell(*ALL, quirks=("a", "b")), "quirk", "works with a, b"),
        (cell(check("record"), check("replay", "no", "It hangs.")), "fails", "replay: It hangs."),
        (cell(*ALL[:5], check("breakpoint", "skipped")), "works", "works; not tried: breakpoint"),
        (cell(absent="not installed"), "absent", "not installed"),
        (cell(*ALL[:-1], check("exact", "no", "x"), quirks=("a",)), "fails", "exact: x"),
    ],
)
def test_a_verdict_follows_from_the_checks(tried, verdict, sentence):
    assert (tried.verdict, tried.sentence) == (verdict, sentence)


def test_a_cell_reverses_when_the_middle_was_stepped_back_through():
    assert cell(*ALL).reverses
    assert not cell(*ALL[:4]).reverses
    assert not cell(check("middle", "no")).reverses


def subject(tmp_path, content=b"guest", **more):
    image = tmp_path / f"image{len(list(tmp_path.iterdir()))}"
    image.write_bytes(content)
    facts = {
        "target": "m68k",
        "board": "virt",
        "guest": "tiny",
        "program": "/usr/bin/qemu-system-m68k",
        "version": "10.0.2",
        "qemu_sha256": "ab",
        "arguments": ("-M", "virt", "-kernel", str(image)),
        "files": (str(image),),
    }
    return Subject(**facts | more)


def test_a_result_is_named_by_what_was_tried_not_by_where_it_lies(tmp_path):
    one = subject(tmp_path)
    assert one.key() == subject(tmp_path, program="/opt/qemu-system-m68k").key()
    others = [
        subject(tmp_path, b"another guest"),
        subject(tmp_path, qemu_sha256="cd"),
        subject(tmp_path, board="q800"),
        subject(tmp_path, seconds=2.0),
    ]
    assert len({one.key(), *(other.key() for other in others)}) == 5


def test_a_cell_survives_its_file():
    tried = cell(*ALL, quirks=("a",), end=7)
    assert msgspec.json.decode(msgspec.json.encode(tried), type=Cell) == tried


def test_the_page_has_the_evidence_and_escapes_it():
    text = page([cell(check("record", "no", "died <1>", "<script>alert(1)</script>"))])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "died &lt;1&gt;" in text
    assert "0 of 1 boards" in text
    assert "http" not in text.replace("http-equiv", "")
