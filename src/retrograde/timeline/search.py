"""Finding hits: what a search looks for, and the order in which intervals are replayed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe_page import RecordFlag
from retrograde.machine.probe_request import Breakpoint, Watch
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Stops:
    """What a search looks for: instructions and memory accesses."""

    breakpoints: tuple[Breakpoint, ...] = ()
    watches: tuple[Watch, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.breakpoints or self.watches)


@dataclass(frozen=True)
class Hit:
    """An instruction that was looked for.

    It is the one at `position`. For a memory access `address`, `physical`, `size` (in
    bytes), `value` (read or written) and `is_store` tell which; for a breakpoint they
    are None.
    """

    position: int
    pc: int
    address: int | None = None
    physical: int | None = None
    size: int | None = None
    value: int | None = None
    is_store: bool | None = None

    @property
    def is_access(self) -> bool:
        """Whether it is a memory access, not a breakpoint."""
        return self.address is not None


def hit_of(record: np.void) -> Hit:
    """Return a probe's record as a Hit."""
    flags = int(record["flags"])
    position, pc = int(record["position"]), int(record["pc"])
    if not flags & RecordFlag.ACCESS:
        return Hit(position, pc)
    return Hit(
        position,
        pc,
        int(record["vaddr"]),
        None if flags & RecordFlag.NO_PADDR else int(record["paddr"]),
        int(record["size"]),
        int(record["value"]),
        bool(flags & RecordFlag.STORE),
    )


def intervals(store: CheckpointStore, start: int, stop: int) -> list[tuple[int, int]]:
    """Cut `start` to `stop` at the checkpoints between them, in rising order."""
    inner = [c.position for c in store.checkpoints if start < c.position < stop]
    edges = [start, *inner, stop]
    return [(low, high) for low, high in pairwise(edges) if low < high]


async def scan(
    seat: Seat, stops: Stops, start: int, stop: int, progress: Progress | None = None
) -> list[Hit]:
    """Return the hits at positions from `start` to before `stop`, in order.

    Only the newest are returned where the probe's ring overflows.
    """
    probe = seat.probe
    if probe is None:
        raise EnvironmentLacks(
            "Searching needs the probe, which this QEMU cannot load.",
            "Use QEMU 10.0 or later with plugins, and install a C compiler.",
        )
    probe.arm(breakpoints=stops.breakpoints, watches=stops.watches, span=(start, stop))
    await seat.go(seat.facts.clear_before(start + 1), load=True)
    await seat.run_on(min(seat.facts.clear_from(stop), seat.recording.end), progress)
    records = probe.hits()
    retired = records[(records["flags"] & RecordFlag.ATTEMPT) == 0]
    hits = [hit_of(record) for record in retired]
    probe.disarm()
    return hits


async def first_hit(
    seats: Sequence[Seat], stops: Stops, start: int, stop: int, progress: Progress | None = None
) -> Hit | None:
    """Return the first hit at a position from `start` to before `stop`."""
    pieces = intervals(seats[0].store, start, stop)
    hits = await _first_with_hits(seats, stops, pieces, progress)
    return hits[0] if hits else None


async def last_hit(
    seats: Sequence[Seat], stops: Stops, start: int, stop: int, progress: Progress | None = None
) -> Hit | None:
    """Return the last hit at a position from `start` to before `stop`.

    Intervals between checkpoints are replayed newest first, as many at a time as there
    are seats.
    """
    pieces = intervals(seats[0].store, start, stop)[::-1]
    hits = await _first_with_hits(seats, stops, pieces, progress)
    return hits[-1] if hits else None


async def _first_with_hits(
    seats: Sequence[Seat],
    stops: Stops,
    pieces: Sequence[tuple[int, int]],
    progress: Progress | None,
) -> list[Hit]:
    """Scan `pieces` side by side; return the hits of the first of them that has any."""
    waiting = deque(pieces)
    running: deque[tuple[asyncio.Task[list[Hit]], Seat]] = deque()
    idle = list(seats)
    try:
        while waiting or running:
            while waiting and idle:
                seat, (start, stop) = idle.pop(), waiting.popleft()
                running.append((asyncio.create_task(scan(seat, stops, start, stop)), seat))
            task, seat = running.popleft()
            hits = await task
            if progress:
                progress(seat.position)
            if hits:
                return hits
            idle.append(seat)
        return []
    finally:
        for task, _seat in running:
            task.cancel()
        await asyncio.gather(*(task for task, _seat in running), return_exceptions=True)
