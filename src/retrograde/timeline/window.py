"""A span of positions held in memory: every register change and memory write in it.

Inside a window going back, going forward and looking touch no process. What cannot be
answered exactly from what is held answers None, and the timeline then asks a real
machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.probe_page import FOREVER, RecordFlag
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.pages import PAGE, RamImage

QUIET_PAGES = 256
"""Pages remembered that a window does not change: code, and the page tables on the way."""

_BYTES = np.arange(8)

Records = NDArray[np.void]
"""The probe's records (machine.probe_page.RECORD), oldest first."""


@dataclass(frozen=True)
class Writes:
    """All stores into RAM of a window, oldest first, and the RAM at its start.

    `offsets` are bytes from the start of RAM, `values` the bytes written in memory
    order, shape (stores, 8), of which the first `sizes` count. `unclear` are numbers of
    pages that something else wrote too: a device, a page table walk.
    """

    base: RamImage
    positions: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    values: NDArray[np.uint8]
    unclear: frozenset[int]
    _quiet: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Pages no store of the window touches, as far as they have been read."""

    @cached_property
    def _touched(self) -> frozenset[int]:
        """Numbers of the pages stores touch."""
        ends = (self.offsets, self.offsets + self.sizes - 1)
        return frozenset((np.concatenate(ends) // PAGE).tolist())

    @classmethod
    def of(
        cls, records: Records, base: RamImage, after: RamImage, view: MachineView
    ) -> Self | None:
        """Keep what the probe logged; None when it could not place a store.

        `after` is the RAM once all of `records` happened: what they do not explain is
        unclear.
        """
        done = records[(records["flags"] & (RecordFlag.ATTEMPT | RecordFlag.IO)) == 0]
        if (done["flags"] & RecordFlag.NO_PADDR).any():
            return None
        offsets = view.offsets(done["paddr"])
        kept = offsets >= 0
        done, offsets = done[kept], offsets[kept]
        sizes = done["size"].astype(np.int64)
        values = np.ascontiguousarray(done["value"]).view(np.uint8).reshape(-1, 8)
        if view.isa.byte_order == "big":
            columns = (sizes[:, None] - 1 - np.arange(8)) % 8
            values = np.take_along_axis(values, columns, axis=1)
        # What taking an interrupt pushes is there at the position where it is taken.
        delivered = done["flags"] & RecordFlag.DELIVERY != 0
        positions = done["position"] - delivered.astype(np.uint64)
        writes = cls(base, positions, offsets, sizes, values.copy(), frozenset())
        unclear = [page for page in base.pages_changed(after) if not writes._explain(page, after)]
        return replace(writes, unclear=frozenset(unclear))

    def read(self, offset: int, count: int, position: int) -> bytes | None:
        """Return `count` bytes of RAM from `offset` at `position`; None when unclear."""
        first, last = offset // PAGE, (offset + count - 1) // PAGE
        if self.unclear.intersection(range(first, last + 1)):
            return None
        if first == last and first not in self._touched:
            return self._quiet_page(first)[offset - first * PAGE :][:count]
        data = self.base.read(offset, count)
        until = np.searchsorted(self.positions, position)
        starts, sizes = self.offsets[:until], self.sizes[:until]
        touching = np.flatnonzero((starts + sizes > offset) & (starts < offset + count))
        if touching.size:
            # One row a store, oldest first: of bytes written twice the last one stays.
            at = starts[touching, None] + _BYTES - offset
            there = (at >= 0) & (at < count) & (sizes[touching, None] > _BYTES)
            np.frombuffer(data, np.uint8)[at[there]] = self.values[touching][there]
        return bytes(data)

    def _quiet_page(self, page: int) -> bytes:
        """Return a page that is the same all over the window."""
        content = self._quiet.get(page)
        if content is None:
            content = self._quiet[page] = bytes(self.base.read(page * PAGE, PAGE))
            if len(self._quiet) > QUIET_PAGES:
                self._quiet.pop(next(iter(self._quiet)))
        return content

    def _explain(self, page: int, after: RamImage) -> bool:
        """Whether the stores alone make `page` what it is afterwards."""
        return self.read(page * PAGE, PAGE, FOREVER) == bytes(after.read(page * PAGE, PAGE))


@dataclass(frozen=True)
class Window:
    """Positions `start` to `end`, both included.

    `packets[i]` is the `g` packet at position start + i, None where it is not known for
    sure. `writes` is None when memory cannot be answered here. `pcs[i]` is the linear
    address of instruction start + i, where registers alone do not tell and it was logged.
    """

    start: int
    packets: Sequence[bytes | None]
    writes: Writes | None
    pcs: NDArray[np.uint64] | None = None

    @property
    def end(self) -> int:
        """The last position held."""
        return self.start + len(self.packets) - 1

    def __contains__(self, position: object) -> bool:
        return isinstance(position, int) and self.start <= position <= self.end

    def packet(self, position: int) -> bytes | None:
        """Return the `g` packet at `position`, which must be inside."""
        return self.packets[position - self.start]

    def linear_pc(self, position: int) -> int | None:
        """Return the linear address of the next instruction, None when it was not logged."""
        at = position - self.start
        return int(self.pcs[at]) if self.pcs is not None and at < len(self.pcs) else None
