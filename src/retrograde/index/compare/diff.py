"""Where two recordings of the same machine part: the first position with another pc.

Until an input differs (a clock read, a packet, when an interrupt came) two runs of one
machine are equal; the rr logs say without a replay when that is. What differs then is
data, until a branch depends on it. Where that is, is looked for in two ways. Where both
recordings have the table `calls`, the first call that differs bounds it. What is left is
halved: the runs are equal at a position if the last 64 instructions before it were at the
same addresses.

What neither sees are ways of the same length that meet again: between two equal calls,
or, without the index, before a position tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.index.tables.store import IndexStore
from retrograde.machine.gdb.targetdesc import RegisterValues
from retrograde.position import format_position
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import open_regular
from retrograde.recording.rrlayout import HEADER_BYTES
from retrograde.timeline.timeline import Timeline

Progress = Callable[[str], None]

ALIKE: Final = 64
"""Instructions compared to tell whether two runs are in the same place."""
SAMPLES: Final = 16
"""Positions tried, evenly spread, when two runs are alike at their ends."""
CHUNK: Final = 1 << 20
"""Bytes of a log compared at once."""
_AT_ONCE: Final = 50_000_000
"""Positions whose calls are in memory at once."""


@dataclass(frozen=True)
class Side:
    """What one recording does from the first difference on."""

    pc: int
    registers: RegisterValues


@dataclass(frozen=True)
class Difference:
    """`position` is the first at which the next instruction is another.

    `before` is the address of the last common instruction, `sides` are the two states at
    `position`. `input_position` is where the logs first differ.
    """

    position: int
    input_position: int
    before: int | None
    sides: tuple[Side, Side]


def check_related(first: Recording, second: Recording) -> None:
    """Raise UsageError unless both are recordings of the same machine and inputs."""
    ours, theirs = first.manifest, second.manifest
    if ours.machine != theirs.machine:
        raise UsageError(
            f"{first.name} and {second.name} are recordings of different machines.",
            "Compare two runs of one machine, recorded with the same arguments.",
        )
    if other := other_inputs(first, second):
        raise UsageError(
            f"{first.name} and {second.name} were started with another {other[0]}.",
            "Compare two runs with the same kernel, initrd, firmware and disks.",
        )


def other_inputs(first: Recording, second: Recording) -> list[str]:
    """Return the names of the inputs (kernel, disks) that differ in contents, or are in one."""
    ours, theirs = ({i.name: i.sha256 for i in r.manifest.inputs} for r in (first, second))
    return sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))


def first_input(first: Recording, second: Recording) -> int | None:
    """Return the position of the first event that differs in the logs; None if none does.

    All that comes before is equal in both, for certain.
    """
    byte, position = _first_byte(first.log_path, second.log_path, HEADER_BYTES), 0
    if byte is None:
        return None
    for batch in first.log().batches():
        at = int(np.searchsorted(batch.offset, byte, side="right")) - 1
        if at >= 0:
            position = int(batch.position[at])
        if batch.end > byte:
            break
    return position


def _first_byte(ours: Path, theirs: Path, start: int) -> int | None:
    """Return the first byte from `start` on that two files differ in; constant memory."""
    with open_regular(ours) as one, open_regular(theirs) as other:
        one.seek(start)
        other.seek(start)
        while True:
            left, right = one.read(CHUNK), other.read(CHUNK)
            if left != right:
                size = min(len(left), len(right))
                parts = (np.frombuffer(part, np.uint8, size) for part in (left, right))
                differs = np.flatnonzero(np.not_equal(*parts))
                return start + (int(differs[0]) if differs.size else size)
            if not left:
                return None
            start += len(left)


def first_call(first: Recording, second: Recording, start: int) -> tuple[int, int] | None:
    """Return positions of the last common call and of the first that differs, from `start`.

    None when either lacks the table `calls`, or all are equal.
    """
    stores = IndexStore(first), IndexStore(second)
    end = min(first.end, second.end)
    if not all(store.covers("calls", end) for store in stores):
        return None
    last = start
    for begin in range(start, end, _AT_ONCE):
        ours, theirs = (_calls(store, begin, begin + _AT_ONCE) for store in stores)
        size = min(len(ours), len(theirs))
        differs = np.flatnonzero((ours[:size] != theirs[:size]).any(axis=1))
        common = int(differs[0]) if differs.size else size
        if common:
            last = int(ours[common - 1, 0])
        if common < max(len(ours), len(theirs)):
            return last, min(int(rows[common, 0]) for rows in (ours, theirs) if common < len(rows))
    return None


async def find_difference(
    first: Recording, second: Recording, progress: Progress = lambda _text: None
) -> Difference | None:
    """Return where control flow first differs; None when it never does.

    `progress` is told in words what is being done. Raises UsageError for recordings that
    cannot be compared, and as `Timeline.open` does.
    """
    check_related(first, second)
    start = first_input(first, second)
    if start is None:
        return None
    progress("comparing calls")
    bounds = first_call(first, second, start)
    progress("opening both recordings")
    async with await Timeline.open(first) as ours, await Timeline.open(second) as theirs:
        return await Comparison(ours, theirs, progress).run(start, bounds)


class Comparison:
    """Two timelines, moved side by side."""

    def __init__(self, ours: Timeline, theirs: Timeline, progress: Progress) -> None:
        self._both = ours, theirs
        self._progress = progress

    async def run(self, start: int, bounds: tuple[int, int] | None) -> Difference | None:
        """Return the first difference from `start` on, where both are equal."""
        low, high = bounds or (start, await self._unlike(start))
        if high is None:
            return None
        low = max(0, low)
        while high - low > ALIKE:
            middle = (low + high) // 2
            self._progress(f"between {format_position(low)} and {format_position(high)}")
            if await self._alike(middle):
                low = middle
            else:
                high = middle
        return await self._first(low, high, start)

    async def _unlike(self, start: int) -> int | None:
        """Return a position at which the runs differ, if one can be found."""
        end = min(timeline.end for timeline in self._both)
        for number in range(SAMPLES):
            position = end - (end - start) * number // SAMPLES
            if not await self._alike(position):
                return position
        return None

    async def _alike(self, position: int) -> bool:
        first = max(0, position - ALIKE)
        ours, theirs = await self._pcs(first, position)
        return ours == theirs

    async def _first(self, low: int, high: int, start: int) -> Difference | None:
        """Return the first difference from `low` on; a call at `high` may differ by target."""
        first, last = max(0, low - ALIKE), min(high + 1, *(t.end for t in self._both))
        ours, theirs = await self._pcs(first, last)
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                sides = [await self._side(timeline, first + at) for timeline in self._both]
                before = ours[at - 1] if at else None
                return Difference(first + at, start, before, (sides[0], sides[1]))
        return None

    async def _pcs(self, first: int, last: int) -> tuple[list[int], list[int]]:
        """Return the pcs of both from position `first` to `last`, that included."""
        ours, theirs = await asyncio.gather(*(_pcs(t, first, last) for t in self._both))
        return ours, theirs

    async def _side(self, timeline: Timeline, position: int) -> Side:
        await timeline.seek(position)
        return Side(await timeline.pc(), await timeline.registers())


async def _pcs(timeline: Timeline, first: int, last: int) -> list[int]:
    await timeline.seek(first)
    found = [await timeline.pc()]
    for _ in range(first, last):
        await timeline.step()
        found.append(await timeline.pc())
    return found


def _calls(store: IndexStore, start: int, stop: int) -> NDArray[np.uint64]:
    with store.connect(("calls",)) as connection:
        columns = connection.execute(
            "SELECT position, pc, target FROM calls WHERE position >= ? AND position < ? "
            "ORDER BY position",
            [start, stop],
        ).fetchnumpy()
    names = ("position", "pc", "target")
    return np.stack([np.asarray(columns[name]).astype(np.uint64) for name in names], axis=1)


def lines_around(recording: Recording, position: int, before: int = 3) -> Iterator[str]:
    """Yield the last console lines before `position`, and the one after."""
    lines = list(recording.console.lines())
    passed = sum(line.last <= position for line in lines)
    for number, line in list(enumerate(lines))[max(0, passed - before) : passed + 1]:
        mark = ">" if number >= passed else " "
        yield f"{mark} {line.text.decode(errors='replace')}"
