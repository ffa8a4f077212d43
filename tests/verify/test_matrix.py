"""Trials in processes of their own: results, hangs, crashes, and what is kept."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from retrograde.guests import board_guest
from retrograde.verify import matrix
from retrograde.verify.matrix import available_memory, run_matrix, try_cell
from retrograde.verify.matrixmodel import CHECKS, Subject
from tests.conftest import find_qemu

SLEEPER = """#!/bin/sh
case "$*" in
  --version) echo "QEMU emulator version 10.0.2" ;;
  *-accel*help*) printf 'Accelerators supported:\\ntcg\\n' ;;
  *query-machines*) ;;
  *) echo $$ > {pids}; exec sleep 1000 ;;
esac
"""


def subject_on(program, **more):
    facts = {
        "target": "m68k",
        "board": "virt",
        "guest": "tiny",
        "program": str(program),
        "version": "10.0.2",
        "qemu_sha256": "ab",
        "arguments": ("-M", "virt", "-m", "32"),
    }
    return Subject(**facts | more)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


async def until_gone(pid: int) -> bool:
    """The kernel ends a trial's children when it is gone itself: soon, not at once."""
    for _ in range(200):
        if gone(pid):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
async def test_a_qemu_that_hangs_costs_one_cell_and_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "GRACE_SECONDS", 1.0)
    pids = tmp_path / "pid"
    program = script(tmp_path / "qemu-system-m68k", SLEEPER.format(pids=pids))
    # On a busy machine the deadline may pass before QEMU has been started.
    for seconds in (4.0, 32.0):
        cell = await try_cell(subject_on(program), seconds)
        assert cell.verdict == "fails"
        assert cell.failure is not None
        assert f"not done within {seconds:.0f} s" in cell.failure.text
        if pids.exists():
            break
    assert await until_gone(int(pids.read_text()))


async def test_a_trial_that_crashes_tells_its_last_words(tmp_path):
    cell = await try_cell(subject_on(tmp_path / "no-such-qemu"), 60.0)
    assert cell.verdict == "fails"
    assert cell.failure is not None
    assert "ended with status" in cell.failure.text
    assert "not installed" in cell.failure.evidence


async def test_results_are_kept_and_used_again(tmp_path, monkeypatch):
    tried = []

    async def fake(subject, _deadline, _report):
        tried.append(subject.board)
        return matrix.absent(subject, "tried")

    monkeypatch.setattr(matrix, "try_cell", fake)
    subjects = [subject_on("qemu", board=board) for board in ("a", "b")]

    async def run(**more):
        return await run_matrix(subjects, cache=tmp_path / "cache", jobs=1, deadline=1.0, **more)

    first = await run()
    assert await run() == first
    assert sorted(tried) == ["a", "b"]
    next((tmp_path / "cache").iterdir()).write_text("{")  # a damaged one is tried again
    assert await run() == first
    assert len(tried) == 3
    await run(again=True)
    assert len(tried) == 5


async def test_trials_share_the_memory_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "available_memory", lambda: 1000)
    running, most = 0, 0

    async def fake(subject, _deadline, _report):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return matrix.absent(subject, "tried")

    monkeypatch.setattr(matrix, "try_cell", fake)
    subjects = [subject_on("qemu", board=str(number), memory=500) for number in range(4)]
    subjects.append(subject_on("qemu", board="large", memory=900))
    cells = await run_matrix(subjects, cache=tmp_path, jobs=4, deadline=1.0)
    assert most == 1
    assert [cell.absent for cell in cells[:4]] == ["tried"] * 4
    assert cells[4].absent.startswith("not tried: it takes about")


def test_memory_is_what_the_machine_says():
    assert 1 << 20 < available_memory() < 1 << 50


@pytest.mark.qemu
async def test_a_real_board_passes_all_checks(probe):
    qemu = find_qemu("x86_64")
    guest = board_guest("x86_64", "microvm")
    assert guest is not None
    subject = Subject(
        target="x86_64",
        board="microvm",
        guest=guest.name,
        program=str(qemu.path),
        version=qemu.full_version,
        qemu_sha256=qemu.digest,
        arguments=tuple(guest.qemu_args),
        files=tuple(map(str, guest.files)),
        done=guest.done,
    )
    seen = []
    cell = await try_cell(subject, 250.0, lambda _subject, what: seen.append(what))
    assert [(one.name, one.outcome) for one in cell.checks] == [(name, "ok") for name in CHECKS], (
        msgspec.json.encode(cell)
    )
    assert seen == list(CHECKS)
    assert (cell.verdict, cell.quirks) == ("quirk", ("x86-vapic",))
    assert cell.reverses


@pytest.mark.qemu
async def test_a_trial_looks_where_it_is_told_to(probe):
    """What comes before `start` is passed over, and no random operations are tried."""
    qemu = find_qemu("x86_64")
    guest = board_guest("x86_64", "pc")
    subject = Subject(
        target="x86_64",
        board="pc",
        guest=guest.name,
        program=str(qemu.path),
        version=qemu.full_version,
        qemu_sha256=qemu.digest,
        arguments=tuple(guest.qemu_args),
        start="TINY-PHASE 0000000000000006",
        done=guest.done,
        operations=0,
    )
    cell = await try_cell(subject, 250.0)
    assert cell.failure is None, cell.sentence
    assert cell.outcome("exact") is None
    (checkpoint,) = (check for check in cell.checks if check.name == "checkpoint")
    first = int(re.search(r"at ([0-9_]+)", checkpoint.text)[1])
    assert first > cell.end * 3 // 4
