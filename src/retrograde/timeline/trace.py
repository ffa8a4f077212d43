"""A stretch of execution: its instructions and all that they read and wrote in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.machine.probe.record import is_store, touches
from retrograde.machine.probe.request import Watch
from retrograde.timeline.observe import Wanted, observe
from retrograde.timeline.scan import Records
from retrograde.timeline.seat import Seat

LONGEST = 1_000_000
"""Positions in a trace, at most: what the probe's rings hold of steps and accesses."""

_EVERYWHERE = Watch(0, (1 << 64) - 1, "rw")


@dataclass(frozen=True)
class Trace:
    """The instructions at positions from `start` to before `stop`.

    `pcs` are their linear addresses, `accesses` their loads and stores in order
    (machine.probe.page.RECORD). What an interrupt or exception pushed is with the
    instruction before it (probe.record.is_pushed).
    """

    start: int
    stop: int
    pcs: NDArray[np.uint64]
    accesses: Records

    def pc(self, position: int) -> int:
        """Return the linear address of the instruction at `position`."""
        return int(self.pcs[position - self.start])

    def accesses_at(self, position: int, *, stores: bool) -> Records:
        """Return the stores, or the loads, of the instruction at `position`."""
        low, high = np.searchsorted(self.accesses["position"], [position, position + 1])
        here = self.accesses[low:high]
        chosen: Records = here[is_store(here) == stores]
        return chosen

    def last_store(self, physical: int, count: int, before: int) -> Any | None:
        """Return the last store to any of `count` bytes at a position below `before`."""
        stores = self.accesses[: np.searchsorted(self.accesses["position"], before)]
        hits = np.flatnonzero(is_store(stores) & touches(stores, physical, physical + count - 1))
        return stores[hits[-1]] if len(hits) else None


async def trace(seat: Seat, start: int, stop: int) -> Trace:
    """Replay from `start` to `stop`, at most LONGEST positions, and return what happened."""
    _check(start, stop)
    wanted = Wanted(watches=(_EVERYWHERE,), steps=True)
    async with observe(seat, wanted, start, stop) as seen:
        (accesses, is_whole), pcs = seen.hits(), seen.pcs()
    if not is_whole and stop - start > 1:
        return await trace(seat, (start + stop) // 2, stop)
    return Trace(start, stop, pcs, accesses)


async def addresses(seat: Seat, start: int, stop: int) -> NDArray[np.uint64]:
    """Replay as `trace` does, and return the linear addresses of the instructions alone."""
    _check(start, stop)
    async with observe(seat, Wanted(steps=True), start, stop) as seen:
        return seen.pcs()


def _check(start: int, stop: int) -> None:
    if not 0 <= start <= stop <= start + LONGEST:
        raise UsageError(
            f"From {start:_} to {stop:_} cannot be traced.",
            f"Give two positions at most {LONGEST:_} apart, the smaller one first.",
        )
