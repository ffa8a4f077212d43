"""The harness itself: it sees what it looks for."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Done
from tests.faults import calls, judge, processes
from tests.faults.commands import Command
from tests.faults.fault import Fault
from tests.faults.judge import Verdict, judge_end
from tests.faults.place import Place
from tests.faults.processes import Running, Setting


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "p"
    for name in ("a.retro/cache", "b.retro", "out", "t"):
        (root / name).mkdir(parents=True)
    (root / "p.tar.zst").touch()
    return Place(root, (), 0)


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are texts of Python."""
    monkeypatch.setattr(processes, "RETROGRADE", (sys.executable, "-c"))


def command(text: str) -> Command:
    return Command("text", lambda _: (text,), lambda _, done: done.stdout)


def columns(status: int, stderr: str, **fields: object) -> list[str]:
    verdict = Verdict("x", "kill")
    judge_end(verdict, Done(status, b"", stderr), **({"allowed": {3}} | fields))  # type: ignore[arg-type]
    return [column for column, _ in verdict.wrong]


GOOD = "retrograde: Memory ran out.\nFree some.\n"


@pytest.mark.parametrize(
    ("status", "stderr", "wrong"),
    [
        (3, GOOD, []),
        (1, GOOD, [judge.CODE]),
        (70, GOOD, [judge.CODE]),
        (-11, "", [judge.CODE, judge.TRACEBACK]),
        (3, "", [judge.TRACEBACK]),
        (3, "Traceback (most recent call last):\n" + GOOD, [judge.TRACEBACK]),
        (3, GOOD + "Exception ignored in: x", [judge.TRACEBACK]),
        (3, "retrograde: warning: Something.\n", [judge.TRACEBACK]),
    ],
)
def test_ends(status: int, stderr: str, wrong: list[str]) -> None:
    assert columns(status, stderr) == wrong


def test_an_end_that_was_asked_for() -> None:
    assert columns(143, "retrograde: Ended by SIGTERM.\n", allowed={143}) == []
    assert columns(143, "retrograde: Something else.\n", allowed={143}) == [judge.TRACEBACK]


def test_an_end_for_good() -> None:
    """There is nothing to be said then, and what is left goes with the next command."""
    killing = Fault("x", killed=signal.SIGKILL, ends=[(1, "no room")])
    assert killing.took(Done(-9, b"", ""))
    assert killing.took(Done(1, b"", "A library: no room."))
    assert not killing.took(Done(1, b"", GOOD))
    assert not killing.took(Done(3, b"", "no room"))
    assert not Fault("x").took(Done(-9, b"", ""))


def test_answers(place: Place) -> None:
    verdict = Verdict("x", "kill")
    asked = command("")
    assert judge.judge_answer(verdict, place, asked, Done(0, b"1", ""), b"1")
    assert verdict.wrong == []
    assert not judge.judge_answer(verdict, place, asked, Done(0, b"2", ""), b"1")
    assert [column for column, _ in verdict.wrong] == [judge.ANSWER]


@pytest.mark.usefixtures("python")
def test_an_orphan_is_found_and_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PROMPT_SECONDS", 0.1)
    text = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)"
    with Running(command(text), place, Setting()) as running:
        done = running.finish()
        (orphan,) = running.orphans()
        assert orphan.startswith(f"{int(done.stdout)} sleep")
    assert not running.alive()


@pytest.mark.usefixtures("python")
def test_a_hang_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DEADLINE", 0.3)
    with Running(command("import signal; signal.pause()"), place, Setting()) as running:
        assert running.finish().status == processes.HUNG
        assert not running.alive()


@pytest.mark.parametrize(
    "name",
    [
        *("t/x", "out/x.partial", "out/x.part", "a.retro/cache/checkpoints.0123abcd/pages.bin"),
        *(
            "a.retro/cache/index/calls/1-2.host.7.part",
            "a.retro/cache/checkpoints/index.json.9.new",
        ),
    ],
)
def test_leftovers_are_seen(name: str, place: Place) -> None:
    assert place.leftovers() == []
    (place.root / name).parent.mkdir(parents=True, exist_ok=True)
    (place.root / name).touch()
    assert place.leftovers()
    place.remove()


def test_changed_recordings_are_seen(place: Place) -> None:
    before = place.own_files()
    (place.recording / "cache" / "x").touch()
    assert place.own_files() == before
    (place.other / "replay.log").touch()
    assert place.own_files() != before


# Failure by call number.

READING = (
    "import os\n"
    "for number in range(4):\n"
    "    try:\n"
    "        os.close(os.open('/etc/hostname', os.O_RDONLY))\n"
    "        print(number)\n"
    "    except OSError as error:\n"
    "        print(error.errno)\n"
)


@pytest.fixture
def armed(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if reason := calls.why_not():
        pytest.skip(reason)
    monkeypatch.setattr(processes, "RETROGRADE", (sys.executable, "-c"))
    yield place


def test_the_call_that_is_chosen_fails(armed: Place) -> None:
    with Running(command(READING), armed, calls.counting(armed)) as running:
        done = running.finish()
    assert done.stdout == b"0\n1\n2\n3\n"
    first = calls.counts(armed)["open"] - 3
    fault = calls.fault("open", first + 2, "")
    (armed.root / calls.COUNTS).unlink()
    with Running(command(READING), armed, fault.setting(armed)) as running:
        done = running.finish()
    assert done.stdout == b"0\n1\n24\n3\n", os.strerror(24)
    assert fault.met(armed)


def test_a_signal_at_a_call(armed: Place) -> None:
    fault = calls.at(calls.fault("write", 1, ""), "write", 1, sent=signal.SIGKILL)
    text = "import os; os.write(1, b'x')"
    with Running(command(text), armed, fault.setting(armed)) as running:
        done = running.finish()
    assert done.status == -signal.SIGKILL
    assert done.stdout == b""
