"""From a page of memory back to the address spaces that map it, by the page tables in RAM.

A guest tells nobody which programs it runs, and the registers show only the space of one that
runs now. But what a table is, its entries say: a word that is present and holds the address of
a page. So from a page the entries that lead to it are looked for in all of memory, then those
that lead to the tables these are in, up to the root. Intel SDM volume 3, chapter 4.

Pure: memory in, addresses out. Memory is pages and a table that says which is where
(`timeline.pages`), so that what the pages of many moments hold is looked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retrograde.isa.isa import LONG_MODE
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.pages import PAGE, Table

PAGE_BITS: Final = 12
_AT_ONCE: Final = 1 << 12
"""Pages looked through at a time: 16 MiB."""
_MANY: Final = 1 << 16
"""Ways from pages up to roots: more are no system's, and a guest could make 512 to the fourth."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Scheme:
    """How page tables are built: bytes of an entry, and the bits of an address at each level.

    `bits` begins with the level whose entries lead to pages. `address` are the bits of an entry
    that say where it leads; those in `user` are set where programs get at what it leads to.
    """

    entry: int
    bits: tuple[int, ...]
    address: int
    user: int = 0b101


_FRAME: Final = 0x000F_FFFF_FFFF_F000


def scheme_of(registers: Mapping[str, int]) -> Scheme | None:
    """Return how the page tables of an x86 with these registers are built; None: it has none.

    `registers` are those of QEMU's i386 target description (cr0, cr4, efer).
    """
    if not registers["cr0"] >> 31:
        return None
    if registers["efer"] & LONG_MODE:
        return Scheme(8, (9,) * (5 if registers["cr4"] >> 12 & 1 else 4), _FRAME)
    if registers["cr4"] >> 5 & 1:
        return Scheme(8, (9, 9, 2), _FRAME)
    return Scheme(4, (10, 10), 0xFFFF_F000)


def root_of(registers: Mapping[str, int]) -> int:
    """Return where the root table of the current address space of an x86 lies in memory."""
    is_pae = registers["cr4"] >> 5 & 1 and not registers["efer"] & LONG_MODE
    return registers["cr3"] & (0xFFFF_FFE0 if is_pae else _FRAME)


@dataclass(frozen=True)
class Mapped:
    """Pages, by number in RAM, at virtual addresses, each in the space of a root table.

    `root` is the root's physical address.
    """

    page: Numbers
    address: Numbers
    root: Numbers


class PageTables:
    """All in some pages that can be entries of page tables."""

    def __init__(self, pages: NDArray[np.uint64], view: MachineView, scheme: Scheme) -> None:
        """Look through `pages`, shape (pages, 512)."""
        self._scheme, self._view, self._pages = scheme, view, pages
        found = [self._entries(start) for start in range(0, len(pages), _AT_ONCE)]
        slots, indices, targets = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(targets, kind="stable")
        self._slot, self._index, self._target = slots[order], indices[order], targets[order]

    def _entries(self, start: int) -> tuple[Numbers, Numbers, Numbers]:
        """Return in which page entries are, the how many-th there, and to which page they lead."""
        part = self._pages[start : start + _AT_ONCE]
        words: NDArray[Any] = part.view(np.uint64 if self._scheme.entry == 8 else np.uint32)
        frames = words & words.dtype.type(self._scheme.address)
        stop = max((one.stop for one in self._view.ranges), default=0)
        user = words.dtype.type(self._scheme.user)
        slot, index = np.nonzero((words & user == user) & (frames < stop))
        offsets = self._view.offsets(frames[slot, index].astype(np.uint64))
        inside = offsets >= 0
        return slot[inside] + start, index[inside], offsets[inside] >> PAGE_BITS

    def mapping(self, table: Table, pages: Numbers) -> Mapped:
        """Return where `pages` are mapped, in a memory that has them as `table` says.

        Nothing is found where the ways up are too many to be a system's.
        """
        by_slot = np.argsort(table, kind="stable")
        slots = table[by_slot].astype(np.int64)
        leaf, here = pages, pages
        address = np.zeros(len(pages), np.int64)
        place = np.zeros(len(pages), np.int64)
        shifts = accumulate(self._scheme.bits, initial=PAGE_BITS)
        for bits, shift in zip(self._scheme.bits, shifts, strict=False):
            which, entry = _ranges(self._target, here)
            index = self._index[entry]
            again, at = _ranges(slots, self._slot[entry])
            if len(again) > _MANY:
                again = at = again[:0]
            # Tables smaller than a page are some in a page.
            inner = index[again] & ((1 << bits) - 1)
            place = (index[again] - inner) * self._scheme.entry
            address = address[which][again] | inner << shift
            leaf, here = leaf[which][again], by_slot[at]
        root = self._view.physical(here.astype(np.int64) * PAGE) + place
        return Mapped(leaf, address, root)

    def page_at(self, table: Table, root: int, address: int) -> int | None:
        """Return the number of the page at a virtual address in the space of `root`, if any."""
        scheme, at = self._scheme, root
        shift = PAGE_BITS + sum(scheme.bits)
        for bits in reversed(scheme.bits):
            shift -= bits
            at += (address >> shift & ((1 << bits) - 1)) * scheme.entry
            offset = self._view.offset(at, scheme.entry)
            if offset is None:
                return None
            page, index = self._pages[int(table[offset // PAGE])], offset % PAGE
            entry = int.from_bytes(page.tobytes()[index : index + scheme.entry], "little")
            if entry & scheme.user != scheme.user:
                return None
            at = entry & scheme.address
        offset = self._view.offset(at, PAGE)
        return None if offset is None else offset // PAGE


def _ranges(rising: Numbers, wanted: Numbers) -> tuple[Numbers, Numbers]:
    """Return for each of `wanted` where in `rising` it is: which of them, and places there."""
    first = np.searchsorted(rising, wanted, "left")
    counts = np.searchsorted(rising, wanted, "right") - first
    if counts.sum() > _MANY:
        counts = np.zeros_like(counts)
    which = np.repeat(np.arange(len(wanted)), counts)
    begins = np.cumsum(counts) - counts
    return which, np.arange(len(which)) - begins[which] + first[which]
