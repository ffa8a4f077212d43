"""Read QEMU's rr log: what happened to the machine, and at which position.

The log alone says where things happened: the position of an event is the sum of
the INSTRUCTION events before it, which is QEMU's icount. When the machine stands
at position p, every event at positions below p has happened, and so have the bytes
written by instruction p - 1, which the log holds *at* p.

The end. QEMU goes on recording for a moment after the event that asks it to stop:
up to some 12 000 instructions are in the log behind the first SHUTDOWN. A replay
acts on that SHUTDOWN when it meets it, while the vCPU thread may or may not be
quick enough to run what follows: of 13 replays of one log 10 stopped at the
SHUTDOWN and 3 at the last instruction. So `LogSummary.end` is the position of the
first SHUTDOWN, which every replay reaches, and `last_position` the most a replay
can show. (QEMU before 10.2 writes the SHUTDOWN without first accounting for the
instructions run so far, so the instruction that asked for it may come after `end`.)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..errors import InternalError, LogCorrupt, RecordingError
from .folder import open_regular
from .rrevents import SHUTDOWN_KINDS, Event, Kind, decode, shutdown_cause
from .rrlayout import FIRST, HEADER_BYTES, LAYOUTS, Layout, known_qemus
from .rrscan import (
    MIN_CHUNK_BYTES,
    Bytes,
    ImpossibleEvent,
    Indices,
    Positions,
    Scan,
    Scanner,
    measure,
)

#: What is read and scanned at once: small enough for the scan's tables to stay in the cache.
CHUNK_BYTES: Final = 128 << 10
#: icount is a signed 64-bit number in QEMU.
MAX_POSITION: Final = 2**63 - 1

_IS_SHUTDOWN: Final = np.isin(np.arange(256), list(SHUTDOWN_KINDS))
_REMEDY_CORRUPT = "Fetch the recording again or record anew; what comes before that byte is sound."
_REMEDY_TRUNCATED = "Repair the log to keep what comes before, or fetch the recording again."


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive events as columns of equal length.

    `position` is that before the event, `offset` the byte in the log at which the
    event starts, `end` and `end_position` those after the last of them.
    """

    kind: Bytes
    position: Positions
    offset: Positions
    end: int
    end_position: int
    _scan: Scan

    def words(self, events: Indices, at: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        """Return the u32 `at` bytes after the kind byte of each of `events` (indices here).

        For kinds of fixed length only: an array may go on beyond what is in memory.
        """
        return self._scan.words(events, at)

    @property
    def ended(self) -> bool:
        """Whether the log ends with this batch, by an END event."""
        return self._scan.ended


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What one pass over a log finds.

    `end` is the last position that every replay reaches (see the module),
    `last_position` that after the last instruction logged. `shutdown` is the cause
    of the first SHUTDOWN event, in QAPI's words; a log without one has None.
    `bytes` is the size of the file, of which the last `tail_bytes` hold no whole event.
    """

    counts: dict[Kind, int]
    end: int
    last_position: int
    shutdown: str | None
    ended: bool
    finalized: bool
    bytes: int
    tail_bytes: int


@dataclass(frozen=True, slots=True)
class RrLog:
    """An rr log on disk. Holds no file open; every iteration opens it anew.

    `finalized` says whether QEMU finished the log: a recorder that was killed leaves
    zeros in place of the version. Reading such a log stops at its last whole event.
    A finalised log must be whole: reading one that is not raises `LogCorrupt`, unless
    it was opened with `salvage`, which reads it as if it had never been finalised.
    """

    path: Path
    layout: Layout
    finalized: bool
    size: int
    salvage: bool
    chunk_bytes: int

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        salvage: bool = False,
        unfinished: int = FIRST.version,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> RrLog:
        """Check the header of the log at `path`; the events are read later.

        `unfinished` is the version of a log whose header does not tell it. A log still
        being written is read as long as it is now. Raises RecordingError when there is
        none to read, LogCorrupt when it is of no version in `LAYOUTS`.
        """
        path = Path(path)
        try:
            with open_regular(path) as file:
                header = file.read(HEADER_BYTES)
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise RecordingError(
                f"The rr log {path} cannot be read: {error.strerror}.",
                "Give the path of a recording that holds its replay.log.",
            ) from error
        finalized = any(header)
        layout = LAYOUTS.get(int.from_bytes(header[:4], "big") if finalized else unfinished)
        if layout is None or any(header[4:]):
            found = f"its header is {header.hex(' ')}" if finalized else f"it is {unfinished:#010x}"
            raise LogCorrupt(
                f"{path} is no rr log that retrograde knows: {found}.",
                f"Record with another QEMU. Those with logs that are known: {known_qemus()}.",
            )
        return cls(path, layout, finalized, size, salvage, max(chunk_bytes, MIN_CHUNK_BYTES))

    def batches(self) -> Iterator[Batch]:
        """Read the log in order, in constant memory. Raises `LogCorrupt` where it is damaged.

        After the last batch of a log that was never finalised, the bytes from its
        `end` on hold no whole event.
        """
        at, position, ended = HEADER_BYTES, 0, False
        scanner = Scanner(min(self.chunk_bytes, self.size), self.layout)
        with open_regular(self.path) as file:
            while at < self.size and not ended:
                data = os.pread(file.fileno(), min(self.chunk_bytes, self.size - at), at)
                found = scanner.scan(data, self.size - at)
                if not found.starts.size:
                    self._check_tail(data, at, position)
                    break
                batch = _batch(found, at, position)
                at, position, ended = batch.end, batch.end_position, found.ended
                if position > MAX_POSITION:
                    raise self._corrupt("the position passes 2^63", at, batch.position[-1].item())
                yield batch
        if ended and at < self.size:
            raise self._corrupt(f"{self.size - at:_} bytes follow the END event", at, position)
        if not ended and self.finalized and not self.salvage:
            raise LogCorrupt(
                f"The rr log {self.path} is cut off: the event at byte {at:_}, position "
                f"{position:_}, is not whole or the END event is missing.",
                _REMEDY_TRUNCATED,
            )

    def events(
        self,
        kinds: Collection[Kind] | None = None,
        start_position: int = 0,
        stop_position: int | None = None,
    ) -> Iterator[Event]:
        """Decode the events of `kinds` (all if None) with start <= position < stop, in order."""
        wanted = np.zeros(256, np.bool_)
        wanted[list(Kind if kinds is None else kinds)] = True
        with open_regular(self.path) as file:
            for batch in self.batches():
                if stop_position is not None and batch.position[0] >= stop_position:
                    return
                chosen = wanted[batch.kind] & (batch.position >= start_position)
                if stop_position is not None:
                    chosen &= batch.position < stop_position
                if chosen.any():
                    yield from _decode(file.fileno(), batch, np.flatnonzero(chosen), self.layout)

    def summary(self) -> LogSummary:
        """Read the log once and say what is in it."""
        counts = np.zeros(256, np.int64)
        shutdown: tuple[int, str] | None = None
        last_run = last_position = 0
        at, ended = min(HEADER_BYTES, self.size), False
        for batch in self.batches():
            counts += np.bincount(batch.kind, minlength=256)
            if shutdown is None:
                shutdown = _first_shutdown(batch)
            ran = np.flatnonzero(batch.kind == Kind.INSTRUCTION)
            if ran.size:
                last_run = batch.position[ran[-1]].item()
            last_position, at, ended = batch.end_position, batch.end, batch.ended
        # A log without END can be replayed only up to its last INSTRUCTION: what the
        # guest met while running those instructions may be lost (see rrrepair).
        end = last_position if ended else last_run
        return LogSummary(
            counts={kind: int(counts[kind]) for kind in Kind if counts[kind]},
            end=min(end, shutdown[0]) if shutdown else end,
            last_position=last_position,
            shutdown=shutdown[1] if shutdown else None,
            ended=ended,
            finalized=self.finalized,
            bytes=self.size,
            tail_bytes=self.size - at,
        )

    def _check_tail(self, data: bytes, at: int, position: int) -> None:
        """Return if the event at byte `at` is merely cut off; raise if it is impossible."""
        try:
            length = measure(data, self.layout)
        except ImpossibleEvent as error:
            raise self._corrupt(str(error), at, position) from None
        if length is not None and at + length <= self.size:
            raise InternalError(f"The scan of {self.path} missed the event at byte {at:_}.")

    def _corrupt(self, why: str, at: int, position: int) -> LogCorrupt:
        return LogCorrupt(
            f"The rr log {self.path} is damaged at byte {at:_}, position {position:_}: {why}.",
            _REMEDY_CORRUPT,
        )


def _batch(found: Scan, at: int, position: int) -> Batch:
    passed = np.cumsum(found.instructions)
    return Batch(
        kind=found.kinds,
        position=passed - found.instructions + np.uint64(position),
        offset=found.starts.astype(np.uint64) + np.uint64(at),
        end=at + found.end,
        end_position=position + passed[-1].item(),
        _scan=found,
    )


def _decode(fd: int, batch: Batch, chosen: Indices, layout: Layout) -> Iterator[Event]:
    starts = batch.offset[chosen].tolist()
    ends = np.append(batch.offset, np.uint64(batch.end))[chosen + 1].tolist()
    positions = batch.position[chosen].tolist()
    base = starts[0]
    # One read for all of them, unless they are so far apart that an array lies between.
    held = os.pread(fd, min(ends[-1] - base, CHUNK_BYTES), base)
    for start, end, position in zip(starts, ends, positions, strict=True):
        if end - base <= len(held):
            raw = held[start - base : end - base]
        else:
            raw = os.pread(fd, end - start, start)
        yield decode(raw, position, start, layout)


def _first_shutdown(batch: Batch) -> tuple[int, str] | None:
    shutdowns = np.flatnonzero(_IS_SHUTDOWN[batch.kind])
    if not shutdowns.size:
        return None
    first = shutdowns[0]
    return batch.position[first].item(), shutdown_cause(Kind(int(batch.kind[first])))
