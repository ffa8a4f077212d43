"""Which interrupts and exceptions were taken at a position, and why."""

from __future__ import annotations

import numpy as np

from retrograde.machine.traps import Kind, Trap, trap_of
from retrograde.timeline.observe import Wanted, observe
from retrograde.timeline.seat import Seat


async def traps_at(seat: Seat, position: int) -> list[Trap]:
    """Return what was taken at `position`, in its order, with reasons as far as they are known.

    None are without the probe, and at the end, where no handler begins. Moves `seat` only where
    there is something to look for.
    """
    facts = seat.facts
    low, high = np.searchsorted(facts.taken, [position, position + 1]).tolist()
    kinds: list[Kind] = [
        "exception" if is_exception else "interrupt"
        for is_exception in facts.are_exceptions[low:high]
    ]
    traps = [Trap(position, kind) for kind in kinds]
    if not traps or seat.probe is None or position >= seat.recording.end:
        return traps
    target = seat.recording.manifest.machine.target
    async with observe(seat, Wanted(traps=True), position, position) as seen:
        for row in seen.traps():
            number = int(row["number"]) - low
            if 0 <= number < len(traps):
                traps[number] = trap_of(row, kinds[number], target)
    return traps
