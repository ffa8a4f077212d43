"""Which processor ran when: reading schedule.log, and fitting it to a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrograde.errors import RecordingError
from retrograde.recording import rrevents as rr
from retrograde.recording.rrevents import Event, Kind
from retrograde.recording.rrlog import RrLog
from retrograde.recording.schedule import HEAD_BYTES, encode_schedule, read_schedule
from tests.recording.rrlog_writer import write

CHANGES = [(8, 1), (9, 0), (200, 1), (70_000, 0), (1 << 40, 1)]


def test_what_was_written_is_read() -> None:
    found = read_schedule(encode_schedule(2, CHANGES), 2, whole=True)
    assert list(zip(found.offset.tolist(), found.vcpu.tolist(), strict=True)) == CHANGES
    assert np.frombuffer(found.table(), np.uint64).tolist() == [n for c in CHANGES for n in c]


def test_a_machine_where_nothing_changed() -> None:
    assert read_schedule(encode_schedule(4, []), 4, whole=True).table() == b""


def test_most_changes_take_two_bytes() -> None:
    every = encode_schedule(4, [(8 + 500 * n, n % 4) for n in range(1000)])
    assert len(every) - HEAD_BYTES <= 2000


def test_an_unfinished_one_is_read_up_to_what_is_whole() -> None:
    content = encode_schedule(2, CHANGES)[:-1]
    assert len(read_schedule(content, 2, whole=False).offset) == len(CHANGES) - 1
    with pytest.raises(RecordingError, match="cut off"):
        read_schedule(content, 2, whole=True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not one of 2"),
        (encode_schedule(3, CHANGES), "not one of 2"),
        (encode_schedule(2, [(8, 1)]) + b"\x00", "at one place"),
        (encode_schedule(2, []) + b"\xff" * 8 + b"\x01", "too large"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, why: str) -> None:
    with pytest.raises(RecordingError, match=why):
        read_schedule(content, 2, whole=False)


EVENTS = (
    rr.Instruction(Kind.INSTRUCTION, 0, 0, 30),
    Event(Kind.INTERRUPT, 0, 0),
    rr.Instruction(Kind.INSTRUCTION, 0, 0, 5),
    Event(Kind.CHECKPOINT_CLOCK_WARP_ACCOUNT, 0, 0),
    rr.Instruction(Kind.INSTRUCTION, 0, 0, 7),
    Event(Kind.END, 0, 0),
)


def _log(place: Path) -> tuple[RrLog, list[int]]:
    """Write a log; return it and where its events are."""
    path = place / "replay.log"
    path.write_bytes(write(EVENTS)[0])
    log = RrLog.open(path)
    return log, [offset for batch in log.batches() for offset in batch.offset.tolist()]


def test_the_log_tells_positions(tmp_path: Path) -> None:
    log, at = _log(tmp_path)
    content = encode_schedule(2, [(at[1], 1), (at[4], 0), (at[5], 1)])
    found = read_schedule(content, 2, whole=True).positions(log)
    assert found.tolist() == [30, 35, 42]


@pytest.mark.parametrize("shift", [1, 3, 1000])
def test_the_schedule_of_another_log_is_refused(tmp_path: Path, shift: int) -> None:
    log, at = _log(tmp_path)
    schedule = read_schedule(encode_schedule(2, [(at[1], 1), (at[2] + shift, 0)]), 2, whole=True)
    with pytest.raises(RecordingError, match="does not belong"):
        schedule.positions(log)


def test_what_lies_behind_a_log_that_is_cut_off_does_not_matter(tmp_path: Path) -> None:
    log, at = _log(tmp_path)
    log.path.write_bytes(log.path.read_bytes()[: at[3]])
    schedule = read_schedule(encode_schedule(2, [(at[1], 1), (at[4], 0)]), 2, whole=True)
    assert schedule.positions(RrLog.open(log.path, salvage=True)).tolist() == [30]
