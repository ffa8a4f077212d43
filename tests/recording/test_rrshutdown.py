"""The guest's shutdown in a log, put behind the instructions that led to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograde.recording import rrevents as rr
from retrograde.recording.rrevents import Event, Kind
from retrograde.recording.rrlog import RrLog
from retrograde.recording.rrscan import MIN_CHUNK_BYTES
from retrograde.recording.rrshutdown import put_behind_its_instructions
from tests.recording.rrlog_writer import write

BEFORE = (
    rr.Instruction(Kind.INSTRUCTION, 0, 0, 5),
    rr.CharWrite(Kind.CHAR_WRITE, 0, 0, 1, 1),
)
ASKED = rr.Shutdown(Kind.SHUTDOWN_GUEST_SHUTDOWN, 0, 0, "guest-shutdown")
SIGNAL = rr.Shutdown(Kind.SHUTDOWN_HOST_SIGNAL, 0, 0, "host-signal")
RAN = rr.Instruction(Kind.INSTRUCTION, 0, 0, 1000)
CHECKPOINT = Event(Kind.CHECKPOINT_CLOCK_HOST, 0, 0)
END = Event(Kind.END, 0, 0)


def log_of(folder: Path, *events: Event) -> RrLog:
    path = folder / "replay.log"
    path.write_bytes(write(events)[0])
    return RrLog.open(path, chunk_bytes=MIN_CHUNK_BYTES)


@pytest.mark.parametrize("asked", [ASKED, SIGNAL])
def test_the_last_instructions_come_before_the_shutdown(asked: rr.Shutdown, tmp_path: Path) -> None:
    log = log_of(tmp_path, *BEFORE * 30, asked, RAN, CHECKPOINT, SIGNAL, END)
    assert log.summary().end == 150
    assert put_behind_its_instructions(log)
    assert (log.summary().end, log.summary().shutdown) == (1150, asked.cause)
    ordered = log_of(tmp_path, *BEFORE * 30, RAN, asked, CHECKPOINT, SIGNAL, END)
    found = log.path.read_bytes()
    assert found == ordered.path.read_bytes()
    assert not put_behind_its_instructions(log)


@pytest.mark.parametrize(
    "events",
    [
        (*BEFORE, RAN, ASKED, CHECKPOINT, RAN, END),  # as it should be
        (*BEFORE, SIGNAL, CHECKPOINT, RAN, END),
        (*BEFORE, SIGNAL, ASKED, RAN, END),
        (*BEFORE, RAN, END),
        (*BEFORE, ASKED),
    ],
)
def test_others_are_left_alone(events: tuple[Event, ...], tmp_path: Path) -> None:
    log = log_of(tmp_path, *events)
    before = log.path.read_bytes()
    if events[-1] is ASKED:
        log = RrLog.open(log.path, salvage=True)
    assert not put_behind_its_instructions(log)
    assert log.path.read_bytes() == before
