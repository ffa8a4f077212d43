"""What strangers wrote, at each door to the terminal."""

from __future__ import annotations

import pytest

from retrograde.cli import output
from retrograde.recording.manifest import encode_manifest
from tests.command import retrograde
from tests.recording.handmade import make_recording, replaced

NASTY = "\u202egnp\u200b\x1b]0;title\x07"
SHOWN = r"\u202egnp\u200b\x1b]0;title\x07"

DOORS = {
    "facts": lambda: output.print_facts({NASTY: NASTY}, title=NASTY),
    "table": lambda: output.print_table([NASTY], [[NASTY]], title=NASTY),
    "say": lambda: output.say(NASTY),
    "note": lambda: output.note(NASTY),
    "warn": lambda: output.warn(NASTY),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_shows_escapes(door, capsys):
    DOORS[door]()
    said = "".join(capsys.readouterr())
    assert SHOWN in said.replace("\n", "").replace(" ", "")
    assert not set(NASTY) & set(said) - set(SHOWN)


@pytest.mark.parametrize("bar", ["progress", "counting", "status"])
def test_bars_show_escapes_and_no_markup(bar, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    text = "[red]" + NASTY.replace("\x1b]", "\x1b")
    if bar == "progress":
        with output.progress(text, 10) as show:
            show(5)
    elif bar == "counting":
        with output.counting(text, 10) as show:
            show(5, text)
    else:
        with output.status(text) as show:
            show(text)
    said = capsys.readouterr().err
    assert "[red]" + SHOWN.replace("x1b]", "x1b") in said
    assert not {"\u202e", "\u200b", "\x07"} & set(said)


def test_a_strangers_manifest(tmp_path):
    recording = make_recording(tmp_path / "a.retro")
    manifest = replaced(recording, created="2026\u202e" + "\u200b" * 4000)
    (recording.path / "manifest.json").write_bytes(encode_manifest(manifest))
    done = retrograde("info", recording.path)
    assert done.status == 0, done.stderr
    shown = "".join(done.stdout.decode().split())
    assert r"2026\u202e\u200b\u200b" in shown
    assert shown.isprintable()
    assert retrograde("info", "--json", recording.path).json()["created"] == manifest.created


def test_errors_that_quote_a_name(tmp_path):
    place = tmp_path / "a\x1b]0;x\x07\u202e.retro"
    missing = retrograde("info", place)
    place.mkdir()
    for done in (missing, retrograde("info", place)):
        assert done.status == 2
        assert r"a\x1b]0;x\x07\u202e.retro" in done.stderr
        assert not {"\x1b", "\u202e"} & set(done.stderr)
