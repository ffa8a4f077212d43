"""What the rr log alone tells the timeline about positions, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.probe.page import FOREVER
from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import RrLog

DELIVERED = (Kind.INTERRUPT, Kind.EXCEPTION)

# Events after which a device may have written guest RAM without any instruction.
FROM_DEVICES = (Kind.BH, Kind.BH_ONESHOT, Kind.BLOCK, Kind.NET)

Positions = NDArray[np.uint64]


@dataclass(frozen=True)
class LogFacts:
    """Positions of events, ascending.

    At a position in `deliveries` QEMU has two states, before and after taking an
    interrupt or exception; ours is the one after, before the instruction that retires
    next; `exceptions` and `interrupts` are the two kinds apart, and `are_exceptions` says
    which of `taken` are of the first. At `disturbances` a device
    may have written memory; at `completions`, which are among them, a device is told that
    a disk request is done. What that read was in memory some time before, since the guest
    handed it in.
    """

    exceptions: Positions
    interrupts: Positions
    deliveries: Positions
    disturbances: Positions
    completions: Positions
    are_exceptions: NDArray[np.bool_]

    @classmethod
    def read(cls, log: RrLog) -> LogFacts:
        """Read the log once."""
        kinds = {kind: [np.zeros(0, np.uint64)] for kind in (*DELIVERED, *FROM_DEVICES)}
        are_exceptions = [np.zeros(0, np.bool_)]
        for batch in log.batches():
            for kind, found in kinds.items():
                found.append(batch.position[batch.kind == kind].astype(np.uint64))
            taken = batch.kind[np.isin(batch.kind, DELIVERED)]
            are_exceptions.append(taken == Kind.EXCEPTION)
        at = {kind: np.concatenate(found) for kind, found in kinds.items()}
        deliveries = np.unique(np.concatenate([at[kind] for kind in DELIVERED]))
        devices = np.concatenate([at[kind] for kind in FROM_DEVICES])
        return cls(
            at[Kind.EXCEPTION],
            at[Kind.INTERRUPT],
            deliveries,
            np.unique(devices),
            np.unique(at[Kind.BLOCK]),
            np.concatenate(are_exceptions),
        )

    @cached_property
    def taken(self) -> Positions:
        """All interrupts and exceptions in the order of the log, several at a position or not."""
        return np.sort(np.concatenate([self.exceptions, self.interrupts]))

    def is_delivery(self, position: int) -> bool:
        """Whether an interrupt or exception may be taken at `position`."""
        at = np.searchsorted(self.deliveries, position)
        return bool(at < len(self.deliveries) and self.deliveries[at] == position)

    def clear_before(self, position: int) -> int:
        """Return the last position before `position` with only one state, 0 if there is none."""
        position = max(0, position - 1)
        while position > 0 and self.is_delivery(position):
            position -= 1
        return position

    def clear_from(self, position: int) -> int:
        """Return the first position from `position` on with only one state."""
        while self.is_delivery(position):
            position += 1
        return position

    def completes_within(self, start: int, stop: int) -> bool:
        """Whether a disk request is done at a position from `start` to `stop`, both included."""
        low = np.searchsorted(self.completions, start)
        return bool(low < np.searchsorted(self.completions, stop, side="right"))

    def disturbed_from(self, position: int) -> int:
        """Return the first position from `position` on at which a device may have written."""
        at = np.searchsorted(self.disturbances, position)
        return int(self.disturbances[at]) if at < len(self.disturbances) else FOREVER
