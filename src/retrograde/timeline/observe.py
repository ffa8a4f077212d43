"""The one operation on the probe: between two positions, have it tell this.

::

    async with observe(seat, Wanted(watches=(watch,)), start, stop) as seen:
        seen.hits()

Who observes need not know how a probe is armed, from where a replay must come for it to see all,
nor what its records mean before they are settled.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.moments import Kept, Moment, moments_of
from retrograde.machine.probe.page import Feature
from retrograde.machine.probe.probe import Probe
from retrograde.machine.probe.record import retired
from retrograde.machine.probe.request import Breakpoint, Memory, Watch
from retrograde.timeline.pages import RamImage
from retrograde.timeline.scan import Records
from retrograde.timeline.seat import Seat

LEAD = 4096
"""Positions ahead of those that need short blocks from which they are made: the probe begins
to compile its work in about 2000 early."""


@dataclass(frozen=True)
class Wanted:
    """What the probe is to tell; see `Probe.arm`.

    With `memory` the RAM at the start is kept, too; with `traps`, why interrupts and exceptions
    were taken. `short` has QEMU run one instruction a
    block, where alone all registers are right; `exact` says that it is no use otherwise.
    """

    breakpoints: tuple[Breakpoint, ...] = ()
    watches: tuple[Watch, ...] = ()
    registers: tuple[str, ...] = ()
    steps: bool = False
    moments: Kept | None = None
    memory: Memory | None = None
    traps: bool = False
    short: bool = False
    exact: bool = False


class Seen:
    """What the probe has told of the positions from `start` to before `stop`.

    The machine stands at `until`, `stop` or somewhat later. `before` is the RAM at `start`,
    None where it was not wanted. Nothing of this may be used once `observe` is left.
    """

    def __init__(self, probe: Probe, wanted: Wanted, start: int, stop: int, until: int) -> None:
        self.start, self.stop, self.until = start, stop, until
        self.before: RamImage | None = None
        self._probe = probe
        self._wanted = wanted

    @property
    def is_exact(self) -> bool:
        """Whether all registers told are right."""
        return self._probe.facts().registers_exact

    @property
    def deliveries_missed(self) -> int:
        """How many interrupts and exceptions may have pushed something that was not seen."""
        return self._probe.facts().deliveries_missed

    def hits(self) -> tuple[Records, bool]:
        """Return breakpoints reached and watched accesses, in order, and if they are all.

        Only the newest are kept where there are very many. What taking an interrupt or exception
        at a position pushes, the instruction before it is held to have written: at the
        position itself it is already there.
        """
        records = retired(self._probe.hits())
        inside = (records["position"] >= self.start) & (records["position"] < self.stop)
        return records[inside], self._probe.kept_all("hits")

    def writes(self) -> Records:
        """Return all stores up to `until`, as the probe has logged them (Writes.of)."""
        return self._probe.writes()

    def changes(self) -> NDArray[np.void]:
        """Return all changes of registers, oldest first (machine.probe.page.CHANGE)."""
        return self._probe.changes()

    def traps(self) -> NDArray[np.void]:
        """Return why handlers began up to `until` (machine.probe.page.TRAP)."""
        return self._probe.rows("traps").copy()

    def pcs(self) -> NDArray[np.uint64]:
        """Return the linear address of the instruction at each position.

        Of those begun at one position the last is the one that retires.
        """
        steps, wanted = self._probe.steps(), np.arange(self.start, self.stop, dtype=np.uint64)
        last = np.searchsorted(steps["position"], wanted, "right") - 1
        pcs: NDArray[np.uint64] = steps["pc"][last]
        return pcs

    def moments(self) -> Iterator[Moment]:
        """Yield what was kept at hits."""
        return moments_of(self._probe, self._wanted.moments) if self._wanted.moments else iter(())


@contextlib.asynccontextmanager
async def observe(seat: Seat, wanted: Wanted, start: int, stop: int) -> AsyncIterator[Seen]:
    """Replay from `start` to `stop`, which are positions, and give what was seen.

    Moves `seat`, and needs no `go` before (Seat.surviving). With `memory`, `start` must have
    one state only (LogFacts.clear_before). Raises EnvironmentLacks without a probe.
    """
    probe = _probe_of(seat)
    until = min(seat.facts.clear_from(stop + 1), seat.recording.end)
    seen = Seen(probe, wanted, start, stop, until)
    try:
        await _replay(seat, probe, wanted, seen)
        if wanted.exact and not seen.is_exact:
            # It learns where QEMU keeps the flags from the instructions before those it is to
            # tell them of; at the start of a recording there are none, so they were these.
            await _replay(seat, probe, wanted, seen)
        yield seen
    finally:
        probe.disarm()


def _probe_of(seat: Seat) -> Probe:
    if seat.probe is None:
        raise EnvironmentLacks(
            "This needs the probe, which this QEMU cannot load.",
            "Use QEMU 10.0 or later with plugins, and install a C compiler.",
        )
    return seat.probe


async def _replay(seat: Seat, probe: Probe, wanted: Wanted, seen: Seen) -> None:
    probe.arm(
        breakpoints=wanted.breakpoints,
        watches=wanted.watches,
        registers=wanted.registers,
        steps=wanted.steps,
        moments=wanted.moments,
        memory=wanted.memory,
        coverage=Feature.TRAPS if wanted.traps else Feature(0),
        # What has begun at `stop` tells what was there; RAM is looked at where it ends.
        span=(seen.start, max(seen.stop + 1, seen.until)),
    )
    lead = LEAD if wanted.short else 0
    await seat.go(seat.facts.clear_before(max(1, seen.start + 1 - lead)), load=True)
    async with seat.short_blocks() if wanted.short else contextlib.nullcontext():
        if wanted.memory:
            await seat.run_on(seen.start)
            seen.before = await seat.mark()
        await seat.run_on(seen.until)
