"""A span of positions held in memory: every register change and memory write in it.

Inside a window going back, going forward and looking touch no process. What cannot be
answered exactly from what is held answers None, and the timeline then asks a real
machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.probe.page import FOREVER, MOST_BYTES
from retrograde.machine.probe.record import is_of_device, is_placed, pieces, shown_after
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.pages import PAGE, RamImage
from retrograde.timeline.paging import AddressSpace

PAGES_KEPT = 256
"""Pages remembered of a window, and what stores do to them."""

_BYTES = np.arange(MOST_BYTES)

Records = NDArray[np.void]
"""The probe's records (machine.probe.page.RECORD), oldest first."""


class Stores(NamedTuple):
    """Stores that touch one page, oldest first; `starts` count from the start of the page."""

    positions: NDArray[np.uint64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class Writes:
    """All stores into RAM of a window, oldest first, and the RAM at its start.

    One that crosses a page is two here. `offsets` are bytes from the start of RAM, `values`
    the bytes written in memory order, shape (stores, MOST_BYTES), of which the first
    `sizes` count. `unclear` are numbers of
    pages that something else wrote too: a device, a page table walk. From position
    `until` on a device may have written anywhere.
    """

    base: RamImage
    positions: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    values: NDArray[np.uint8]
    unclear: frozenset[int]
    until: int
    _pages: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Pages at the start of the window, as far as they have been read."""
    _stores: dict[int, Stores] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _touched(self) -> frozenset[int]:
        """Numbers of the pages stores touch."""
        ends = (self.offsets, self.offsets + self.sizes - 1)
        return frozenset((np.concatenate(ends) // PAGE).tolist())

    @classmethod
    def of(
        cls, records: Records, base: RamImage, after: RamImage, view: MachineView, until: int
    ) -> Self | None:
        """Keep what the probe logged; None when it could not place a store.

        `after` is the RAM once all of `records` happened: what they do not explain is
        unclear.
        """
        done = records[~is_of_device(records)]
        if not is_placed(done).all():
            return None
        positions = shown_after(done)
        owners, paddrs, sizes, values = pieces(done)
        offsets = view.offsets(paddrs)
        kept = offsets >= 0
        parts = positions[owners[kept]], offsets[kept], sizes[kept], values[kept]
        writes = cls(base, *parts, frozenset(), until)
        unclear = [page for page in base.pages_changed(after) if not writes._explain(page, after)]
        return replace(writes, unclear=frozenset(unclear))

    def read(self, offset: int, count: int, position: int) -> bytes | None:
        """Return `count` bytes of RAM from `offset` at `position`; None when unclear."""
        data = bytearray()  # bytes would be copied whole for each page
        while (done := len(data)) < count:
            page, start = divmod(offset + done, PAGE)
            part = self._part(page, start, min(count - done, PAGE - start), position)
            if part is None:
                return None
            data += part
        return bytes(data)

    def read_quiet(self, offset: int, count: int) -> bytes | None:
        """Return bytes of one page that are the same all over the window, None elsewhere."""
        page, start = divmod(offset, PAGE)
        if start + count > PAGE or page in self._touched or page in self.unclear:
            return None
        return self._page(page)[start : start + count]

    def _part(self, page: int, start: int, count: int, position: int) -> bytes | None:
        """Return `count` bytes from byte `start` of one page."""
        if page in self.unclear:
            return None
        content = self._page(page)[start : start + count]
        if page not in self._touched:
            return content
        stores = self._stores_of(page)
        until = np.searchsorted(stores.positions, position)
        starts = stores.starts[:until]
        touching = np.flatnonzero(
            (starts + stores.sizes[:until] > start) & (starts < start + count)
        )
        if not touching.size:
            return content
        # One row a store, oldest first: of bytes written twice the last one stays.
        at = starts[touching, None] + _BYTES - start
        there = (at >= 0) & (at < count) & (stores.sizes[touching, None] > _BYTES)
        data = bytearray(content)
        np.frombuffer(data, np.uint8)[at[there]] = stores.values[touching][there]
        return bytes(data)

    def _page(self, page: int) -> bytes:
        """Return a page as it is at the start of the window."""
        content = self._pages.get(page)
        if content is None:
            content = self._pages[page] = bytes(self.base.read(page * PAGE, PAGE))
            if len(self._pages) > PAGES_KEPT:
                self._pages.pop(next(iter(self._pages)))
        return content

    def _stores_of(self, page: int) -> Stores:
        """Return the stores that touch a page."""
        stores = self._stores.get(page)
        if stores is None:
            starts = self.offsets - page * PAGE
            chosen = np.flatnonzero((starts < PAGE) & (starts + self.sizes > 0))
            stores = self._stores[page] = Stores(
                self.positions[chosen], starts[chosen], self.sizes[chosen], self.values[chosen]
            )
            if len(self._stores) > PAGES_KEPT:
                self._stores.pop(next(iter(self._stores)))
        return stores

    def _explain(self, page: int, after: RamImage) -> bool:
        """Whether the stores alone make `page` what it is afterwards."""
        return self.read(page * PAGE, PAGE, FOREVER) == bytes(after.read(page * PAGE, PAGE))


class Place(NamedTuple):
    """Where a page of virtual memory lies: from each position on at this physical address.

    That is NOWHERE where nothing is mapped. From `until` on it is not known.
    """

    positions: NDArray[np.uint64]
    physical: NDArray[np.uint64]
    until: int

    def at(self, position: int) -> int | None:
        """Return the physical address at `position`, NOWHERE, or None where it is not known."""
        number = int(np.searchsorted(self.positions, position, side="right")) - 1
        return int(self.physical[number]) if number >= 0 and position < self.until else None


@dataclass(frozen=True)
class Window:
    """Positions `start` to `end`, both included.

    `packets[i]` is the `g` packet at position start + i, None where it is not known for
    sure. `writes` is None when memory cannot be answered here. `pcs[i]` is the linear
    address of instruction start + i, where registers alone do not tell and it was logged.
    `places` has pages of virtual memory by address, where paging is not known to us.
    """

    start: int
    packets: Sequence[bytes | None]
    writes: Writes | None
    pcs: NDArray[np.uint64] | None = None
    places: Mapping[int, Place] = field(default_factory=dict)
    spaces: dict[tuple[int, ...], AddressSpace] = field(default_factory=dict, compare=False)
    """How addresses are mapped all over the window, by `paging_registers`."""
    quiet: dict[tuple[int, bytes], bytes] = field(default_factory=dict, compare=False)
    """Pages that do not change in the window, by virtual address and what maps it there
    (MachineView.mapping)."""

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
