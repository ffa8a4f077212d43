"""Fuzz target: rr logs, read in large pieces and in small ones, repaired, and mapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.errors import LogCorrupt, RecordingError
from retrograde.recording import rrevents as rr
from retrograde.recording.console import ConsoleMap
from retrograde.recording.rrevents import Event, Kind, decode
from retrograde.recording.rrlayout import HEADER_BYTES, LAYOUTS
from retrograde.recording.rrlog import LogSummary, RrLog
from retrograde.recording.rrrepair import write_repaired_copy
from retrograde.recording.rrscan import MIN_CHUNK_BYTES
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target
from tests.recording.rrlog_writer import ENDING, FIRST, KILLED, SECOND, THIRD, encode, header, write

SALVAGE, UNFINISHED, EVENTS, PIECES, CONSOLE, REPAIR = (1 << bit for bit in range(6))
"""Bits of the first byte of an input, which choose how the rest is read."""

_EVENTS: tuple[Event, ...] = (
    rr.Instruction(Kind.INSTRUCTION, 0, 0, 1000),
    rr.CharWrite(Kind.CHAR_WRITE, 0, 0, 1, 1),
    Event(Kind.INTERRUPT, 0, 0),
    rr.Instruction(Kind.INSTRUCTION, 0, 0, 2**31 - 1),
    rr.BottomHalf(Kind.BH, 0, 0, 7),
    rr.Block(Kind.BLOCK, 0, 0, 1 << 63),
    rr.Net(Kind.NET, 0, 0, 0, 1, b"packet" * 20),
    rr.CharRead(Kind.CHAR_READ, 0, 0, 1, b"typed"),
    rr.CharReadAll(Kind.CHAR_READ_ALL, 0, 0, b"all"),
    rr.CharReadAllError(Kind.CHAR_READ_ALL_ERROR, 0, 0, -5),
    rr.Random(Kind.RANDOM, 0, 0, 0, b"random" * 9),
    rr.Clock(Kind.CLOCK_HOST, 0, 0, 12345),
    rr.AudioOut(Kind.AUDIO_OUT, 0, 0, 9),
    Event(Kind.EXCEPTION, 0, 0),
    *(rr.Input(Kind.INPUT, 0, 0, one) for one in (rr.Move(1, -1, True), rr.Button(1, True))),
    rr.Input(Kind.INPUT, 0, 0, rr.Touch(0, 1, 2, 3, 4)),
)


def _seed(flags: int, version: int, *events: Event, begin: bytes | None = None) -> bytes:
    return bytes([flags]) + write(events, begin or header(version))[0]


def _own(version: int) -> tuple[Event, ...]:
    """Return the events that are laid out differently in each version."""
    codes: rr.KeyCodes = "linux" if version == THIRD else "qcode"
    frames = ((1, -1), (2, -2))
    return (
        rr.AudioIn(Kind.AUDIO_IN, 0, 0, 9 if version == FIRST else None, frames),
        rr.Input(Kind.INPUT, 0, 0, rr.Key(30, codes, True)),
    )


MOST = 512

SEEDS = (
    *(_seed(flags, FIRST, *_EVENTS[:5], *ENDING) for flags in (0, EVENTS, PIECES, CONSOLE, REPAIR)),
    *(_seed(0, FIRST, *_EVENTS[at : at + 3], *ENDING) for at in range(5, len(_EVENTS), 3)),
    *(_seed(EVENTS, one, _EVENTS[0], *_own(one), *ENDING) for one in (FIRST, SECOND, THIRD)),
    _seed(REPAIR | UNFINISHED, SECOND, *_EVENTS[:3], *_own(SECOND), begin=KILLED),
    _seed(REPAIR | SALVAGE, FIRST, *_EVENTS[:6], *_EVENTS[3:9])[:-3],
    _seed(PIECES | EVENTS, FIRST, *_EVENTS, *ENDING),
)


def open_target(place: Path) -> Callable[[bytes], None]:
    path, repaired = place / "replay.log", place / "repaired"
    path.touch()

    def one_input(data: bytes) -> None:
        flags = data[0] if data else 0
        path.write_bytes(data[1:])
        salvage, unfinished = bool(flags & SALVAGE), SECOND if flags & UNFINISHED else FIRST
        try:
            log = RrLog.open(path, salvage=salvage, unfinished=unfinished)
        except RecordingError:
            return
        told = _summed(log)
        if flags & EVENTS:
            _read(log, data[1:])
        if flags & PIECES:
            parts = RrLog.open(
                path, salvage=salvage, unfinished=unfinished, chunk_bytes=MIN_CHUNK_BYTES
            )
            assert _summed(parts) == told
        if flags & CONSOLE:
            _map(log)
        if flags & REPAIR:
            _repair(log, repaired)

    return one_input


def _summed(log: RrLog) -> LogSummary | str:
    """Return what is in a log, or what is wrong with it."""
    try:
        summary = log.summary()
    except LogCorrupt as error:
        return str(error)
    assert 0 <= summary.end <= summary.last_position
    return summary


def _read(log: RrLog, data: bytes) -> None:
    """Read all events, which must be what stands in `data`."""
    at, position = HEADER_BYTES, 0
    try:
        for event in log.events():
            assert event.offset == at
            assert event.position == position
            again = encode(event)
            assert decode(again, position, at, log.layout) == event
            at += len(again)
            if isinstance(event, rr.Instruction):
                position += event.count
    except LogCorrupt:
        return
    summary = log.summary()
    assert summary.last_position == position
    assert summary.bytes - summary.tail_bytes == min(at, len(data))
    assert len(data) == summary.bytes


def _map(log: RrLog) -> None:
    try:
        console = ConsoleMap.of(log, b"hello\nworld")
    except RecordingError:
        return
    assert [line.text for line in console.lines()] == console.data.splitlines()
    assert console.bytes_until(1 << 64) == len(console)


def _repair(log: RrLog, repaired: Path) -> None:
    repaired.unlink(missing_ok=True)
    try:
        summary = write_repaired_copy(log, repaired)
    except LogCorrupt:
        return
    assert summary.ended
    assert summary.finalized
    assert LAYOUTS[log.layout.version] == RrLog.open(repaired).layout
    _read(RrLog.open(repaired), repaired.read_bytes())
