"""A span of positions held in memory: every register change and memory write in it.

Inside a window going back, going forward and looking touch no process. Registers come
from single steps through QEMU's stub, which makes them exact on every ISA; writes come
from the probe. What cannot be answered exactly from what is held answers None, and the
timeline then asks a real machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.gdbsteps import Steps
from retrograde.machine.probe_page import RecordFlag
from retrograde.timeline.pages import PAGE, RamImage

Records = NDArray[np.void]
"""The probe's records (machine.probe_page.RECORD), oldest first."""


@dataclass(frozen=True)
class Writes:
    """All stores of a window: the probe's records, and the RAM at the window's start.

    `ram_start` is the physical address of the first byte of `base`.
    """

    records: Records
    base: RamImage
    ram_start: int
    big_endian: bool

    def read(self, physical: int, count: int, position: int) -> bytes | None:
        """Return RAM at `position`; None when the range is not all in RAM."""
        offset = physical - self.ram_start
        if offset < 0 or offset + count > self.base.store.ram_bytes:
            return None
        data = self.base.read(offset, count)
        for record in self._touching(physical, count, position):
            start = int(record["paddr"]) - physical
            value = int(record["value"]).to_bytes(8, "little")[: int(record["size"])]
            value = value[::-1] if self.big_endian else value
            for index, byte in enumerate(value, start):
                if 0 <= index < count:
                    data[index] = byte
        return bytes(data)

    def _touching(self, physical: int, count: int, position: int) -> Records:
        records: Records = self.records[: np.searchsorted(self.records["position"], position)]
        addresses = records["paddr"]
        return records[(addresses + records["size"] > physical) & (addresses < physical + count)]


@dataclass(frozen=True)
class Window:
    """Positions `start` to `end`, both included.

    `packets[i]` is the `g` packet at position start + i. `writes` is None when memory
    cannot be answered here (no probe, a device wrote, RAM is not shared).
    """

    start: int
    packets: Sequence[bytes]
    writes: Writes | None

    @property
    def end(self) -> int:
        """The last position held."""
        return self.start + len(self.packets) - 1

    def __contains__(self, position: int) -> bool:
        return self.start <= position <= self.end

    def packet(self, position: int) -> bytes:
        """Return the `g` packet at `position`, which must be inside."""
        return self.packets[position - self.start]


def arrivals(start: int, first: bytes, steps: Steps) -> list[bytes]:
    """Return the `g` packet at each position from `start` on, as the machine arrived there.

    Taking an interrupt or exception is a step that stays at its position; the state
    before it is the one a replay to that position shows, so the first counts.
    """
    packets = [first]
    for position, packet in zip(steps.positions, steps.registers, strict=True):
        if position == start + len(packets):
            packets.append(packet)
    return packets


def usable(records: Records) -> Records | None:
    """Return the stores into RAM among the probe's records; None when one is unclear."""
    done: Records = records[(records["flags"] & (RecordFlag.ATTEMPT | RecordFlag.IO)) == 0]
    unplaced = done["flags"] & RecordFlag.NO_PADDR != 0
    # The second page of an access across a page border may lie anywhere.
    crossing = (done["vaddr"] % PAGE) + done["size"] > PAGE
    if unplaced.any() or crossing.any():
        return None
    return done
