"""Replays a span of positions and gives every store in it: no loss, constant memory.

The probe keeps the newest records in a ring. The machine is stopped before the ring is
full, by how many stores there were so far; where that was too late, the replay goes back
to the last stop and takes shorter strides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.probe import Capacity, Probe
from retrograde.machine.probe.record import counted_at, retired
from retrograde.machine.probe.request import Watch
from retrograde.timeline.scan import Records
from retrograde.timeline.seat import Progress, Seat

CAPACITY: Final = Capacity(hits=1 << 20, writes=1 << 20, steps=1, changes=1)
"""Stores held at a time; 64 bytes each."""

FULL: Final = CAPACITY.writes // 2
"""Stores in a stride, as aimed at."""

LONGEST: Final = 50_000_000
"""Positions in a stride, at most, so that what is done is on disk every second or so."""

UNPLACED_FOR: Final = 512
"""Instructions after which the place of what a delivery pushed is known or never will be.

More than PUSHED_FOR in probe/memory.c.
"""


@dataclass(frozen=True)
class Stores:
    """All stores at positions from `first` to before `last` (machine.probe.page.RECORD)."""

    first: int
    last: int
    records: Records


async def trace(
    seat: Seat,
    watches: tuple[Watch, ...],
    first: int,
    stop: int,
    progress: Progress | None = None,
) -> AsyncIterator[Stores]:
    """Yield the stores at positions from `first` to before `stop`, stretch by stretch.

    Only those to `watches`, unless there are none. What an interrupt or exception pushes
    is a store of the instruction before it, as everywhere. The seat must carry a probe.
    """
    if seat.probe is None:
        raise EnvironmentLacks(
            "Tracing stores needs the probe, which this QEMU cannot load.",
            "Use QEMU 10.0 or later with plugins, and install a C compiler.",
        )
    tracing = _Tracing(seat, seat.probe, watches, first, stop)
    while tracing.edge < stop:
        yield await seat.surviving(tracing.stride)
        if progress:
            progress(tracing.edge)
    seat.probe.disarm()


class _Tracing:
    """A replay under way: stores before `edge` have been given out."""

    def __init__(
        self, seat: Seat, probe: Probe, watches: tuple[Watch, ...], first: int, stop: int
    ) -> None:
        self._seat = seat
        self._probe = probe
        self._watches = watches
        self._stop = stop
        self._length = FULL
        self._taken = 0  # records given out or dropped since the probe was armed
        self._goes_on = False
        self.edge = first

    async def _begin(self) -> None:
        """Arm the probe and load what comes before `edge`."""
        span = self.edge, self._stop + UNPLACED_FOR
        self._probe.arm(watches=self._watches, writes=not self._watches, span=span)
        await self._seat.go(self._seat.facts.clear_before(self.edge + 1), load=True)
        self._taken = 0

    async def stride(self) -> Stores:
        """Go on until there are enough stores, and return those whose place is settled."""
        if not self._goes_on:
            await self._begin()
        self._goes_on = False  # unless all goes well
        clear_from, first = self._seat.facts.clear_from, self.edge
        end = min(clear_from(self._stop + UNPLACED_FOR), self._seat.recording.end)
        while True:
            last = min(clear_from(first + self._length + UNPLACED_FOR), end)
            await self._seat.run_on(last)
            records = self._probe.since("hits" if self._watches else "writes", self._taken)
            if records is not None:
                break
            self._length = max(1, self._length // 8)
            await self._begin()
        self.edge = self._stop if last == end else last - UNPLACED_FOR
        self._goes_on = True
        ready = int(np.searchsorted(counted_at(records), self.edge))
        self._taken += ready
        self._adapt(ready / max(1, self.edge - first))
        records = retired(records[:ready])
        records = records[records["position"] >= first]
        return Stores(first, self.edge, self._probe.placed(records) if self._watches else records)

    def _adapt(self, density: float) -> None:
        self._length = min(LONGEST, 2 * self._length, int(FULL / max(density, 1e-9)) + 1)
