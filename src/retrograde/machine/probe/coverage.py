"""What ran in an interval, as the probe sums it up while it runs.

::

    coverage = Coverage(probe, ALL)
    coverage.arm(first)
    ... load a checkpoint at `first`, run to the interval's end ...
    seen = coverage.take()
    ... run on to the next interval's end ...

A call or a change of context by the last instruction of an interval shows only when the
next instruction begins: `take` then returns it with what comes after, told by its position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from retrograde.errors import InternalError
from retrograde.machine.probe.page import PAGE_BYTES, Feature
from retrograde.machine.probe.probe import Capacity, Probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALL: Final = Feature.BLOCKS | Feature.WRITTEN | Feature.CALLS | Feature.CONTEXT | Feature.TRAPS

LOWEST_MEMORY: Final = 4 << 30
"""Bytes of physical addresses looked at in any case: devices have memory below that, too."""


def capacity_for(memory_end: int) -> Capacity:
    """Return the room a probe needs for coverage of physical memory below `memory_end`."""
    pages = -(-max(memory_end, LOWEST_MEMORY) // PAGE_BYTES)
    room = {"blocks": 1 << 21, "calls": 1 << 22, "contexts": 1 << 20, "traps": 1 << 20}
    return Capacity(*(1, 1, 1, 1), pages=pages, **room)


@dataclass(frozen=True)
class Covered:
    """What ran since the interval began.

    `blocks` (dtype BLOCK), `calls` (CALL), `contexts` (CONTEXT) and `traps` (TRAP) are the
    probe's records; `calls`, which may be 100 MB, lie where the probe writes anew once the
    machine runs.
    `pages` are the numbers of the physical pages stored to, ascending, and `lines` which
    lines of each. `unplaced` stores are missing there, and what `deliveries_missed`
    interrupts and exceptions pushed.
    """

    blocks: NDArray[Any]
    pages: NDArray[Any]
    lines: NDArray[Any]
    calls: NDArray[Any]
    contexts: NDArray[Any]
    traps: NDArray[Any]
    unplaced: int
    deliveries_missed: int


class Coverage:
    """Use of a probe for coverage of `features`, those of ALL that are wanted."""

    def __init__(self, probe: Probe, features: Feature = ALL) -> None:
        self._probe = probe
        self._features = features | Feature.BLOCKS

    def arm(self, first: int) -> None:
        """Begin at `first`: the next load must be of a state at that very position."""
        self._first = first
        self._clear_written()
        self._probe.begin_epoch()
        self._probe.arm(coverage=self._features, span=(first, (1 << 64) - 1))

    def take(self) -> Covered:
        """Return what ran and begin a new interval; the machine must be stopped.

        Raises InternalError when the probe lost count, or did not begin where it should.
        """
        facts = self._probe.facts()
        if not facts.active or facts.active_from != self._first or facts.surprises:
            raise InternalError(f"The probe did not see all from {self._first:_} on: {facts}.")
        if facts.overflows:
            raise InternalError("More ran in one interval than the probe has room for.")
        blocks, touched = self._probe.rows("blocks"), self._probe.touched()
        ran = blocks["count"] > 0
        touched.sort()
        covered = Covered(
            blocks[ran],
            touched,
            self._written()[touched],
            self._probe.rows("calls"),
            self._probe.rows("contexts").copy(),
            self._probe.rows("traps").copy(),
            facts.unplaced,
            facts.deliveries_missed,
        )
        blocks["count"] = 0
        self._clear_written()
        self._probe.begin_epoch()
        return covered

    def _clear_written(self) -> None:
        self._written()[self._probe.touched()] = 0

    def _written(self) -> NDArray[Any]:
        return self._probe.rows("written")
