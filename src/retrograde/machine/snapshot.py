"""A saved state of a machine, by the name QEMU knows it by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retrograde.machine.ram import GuestRam

Fill = Callable[[GuestRam], None]


@dataclass(frozen=True)
class Snapshot:
    """A saved state to be loaded: QEMU's snapshot `tag`, made at `position`.

    `fill` puts the guest RAM in place that goes with a snapshot that left it out: before
    loading, because devices look into RAM while they are loaded (virtio rings), and after,
    because the reset that precedes loading writes into it (romlist). `mend` puts back only
    what the reset wrote, for callers who know what that is.
    """

    tag: str
    position: int
    fill: Fill | None = None
    mend: Fill | None = None


def fill_of(ram: GuestRam) -> Fill | None:
    """Return what makes RAM all that it is now; None where it is QEMU's own."""
    if not ram.size:
        return None
    held = ram.view().tobytes()

    def fill(again: GuestRam) -> None:
        again.view()[:] = held

    return fill
