"""Running a machine on to where nothing is in flight, so that it can be saved or loaded.

A disk request takes the guest some thousand instructions, and where the next one is done the
log tells. Measured over five kinds of disks in constant use the machine was quiet behind the
very next completion nearly always, 10 ms later; a new process takes 300 ms.
"""

from __future__ import annotations

from retrograde.machine.parked import Parked
from retrograde.timeline.logfacts import LogFacts

TRIES = 20
"""Completions to wait for, at most: a guest may always have handed in the next request."""

NEAR = 10_000_000
"""Positions within which the next one must be: replaying them takes as long as a new process."""


async def run_until_quiet(replayer: Parked, facts: LogFacts, end: int) -> bool:
    """Run forward to a position at which nothing is in flight; False where none is near.

    `end` is that of the recording.

    The machine stands where it was if it is quiet there, and at a position with one state.
    """
    for _ in range(TRIES):
        if await replayer.is_quiet():
            return True
        later = facts.clear_from(facts.disturbed_from(replayer.position) + 1)
        if later >= min(end, replayer.position + NEAR):
            return False
        await replayer.run_to(later)
    return await replayer.is_quiet()
