"""Guest RAM at many positions, each page kept once as long as it does not change.

A checkpoint's RAM is a page table: for every guest page the slot of its content in one
append-only file. Consecutive checkpoints share all pages that did not change between
them, and zero pages take no room. Pure: knows files and arrays, no QEMU.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from retrograde.recording.sealed import checksum

PAGE = 4096
_WORDS = PAGE // 8
_CHUNK = 256
"""Pages compared at a time: 1 MiB, so that the comparison stays in the CPU's cache."""
_ROOM = 1 << 14
"""Slots the file grows by (64 MiB, sparse until written), so that it is mapped rarely."""

Present = NDArray[np.bool_]
"""Whether each MiB of a RAM has memory behind it (GuestRam.present). What has none is
zero and is left alone: even reading it would allocate it."""

Table = NDArray[np.uint32]
"""Slot of each guest page, shape (pages,); slot 0 is the zero page."""

ZERO: Table = np.zeros(1, np.uint32)
"""A table of the zero page alone."""


@dataclass(frozen=True)
class Delta:
    """Pages that differ from a table: their numbers, rising, and contents (pages, 512)."""

    numbers: NDArray[np.intp]
    contents: NDArray[np.uint64]


@dataclass(frozen=True)
class RamImage:
    """One RAM, kept as a stored table and what differs from it."""

    store: PageStore
    table: Table
    delta: Delta | None = None

    @classmethod
    def of(
        cls, store: PageStore, table: Table, ram: NDArray[np.uint8], present: Present
    ) -> RamImage:
        """Keep `ram` as its difference from `table`."""
        return cls(store, table, store.difference(table, ram, present))

    @property
    def size(self) -> int:
        """Bytes of memory it takes beyond the store."""
        return self.delta.contents.nbytes if self.delta else 0

    def fill(self, into: NDArray[np.uint8], present: Present) -> None:
        """Make `into` this RAM."""
        self.store.get(self.table, into, present)
        if self.delta:
            into.view(np.uint64).reshape(-1, _WORDS)[self.delta.numbers] = self.delta.contents

    def put(self, into: NDArray[np.uint8], numbers: Sequence[int]) -> None:
        """Make the pages with these numbers of `into` this RAM's, and perhaps others."""
        pages = into.view(np.uint64).reshape(-1, _WORDS)
        chosen = np.asarray(numbers, np.intp)
        pages[chosen] = self.store.contents(self.table[chosen])
        if self.delta:
            pages[self.delta.numbers] = self.delta.contents

    def pages_changed(self, after: RamImage) -> list[int]:
        """Return the numbers of the pages that differ in `after`, kept over the same table."""
        numbers = [part.delta.numbers for part in (self, after) if part.delta]
        either = np.unique(np.concatenate([np.zeros(0, np.intp), *numbers])).tolist()
        return [
            page for page in either if self.read(page * PAGE, PAGE) != after.read(page * PAGE, PAGE)
        ]

    def lines_changed(
        self, after: RamImage, line: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the numbers of the pages that differ in `after`, rising, and where.

        Bit n of the second number is set when the n-th `line` bytes of the page differ.
        Both images must be of one store.
        """
        numbers = [np.flatnonzero(self.table != after.table)]
        numbers += [part.delta.numbers for part in (self, after) if part.delta]
        pages = np.unique(np.concatenate(numbers)).astype(np.int64)
        bits = np.zeros(len(pages), np.uint64)
        weights = np.uint64(1) << np.arange(PAGE // line, dtype=np.uint64)
        for start in range(0, len(pages), _CHUNK):
            part = slice(start, start + _CHUNK)
            differs = self._contents(pages[part]) != after._contents(pages[part])
            lines = differs.reshape(-1, PAGE // line, line // 8).any(axis=2)
            bits[part] = (lines * weights).sum(axis=1, dtype=np.uint64)
        return pages[bits != 0], bits[bits != 0]

    def _contents(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        contents = self.store.contents(self.table[numbers])
        if self.delta and len(self.delta.numbers):
            at = np.searchsorted(self.delta.numbers, numbers)
            at[at == len(self.delta.numbers)] = 0
            mine = self.delta.numbers[at] == numbers
            contents[mine] = self.delta.contents[at[mine]]
        return contents

    def read(self, offset: int, count: int) -> bytearray:
        """Return `count` bytes from `offset`."""
        data = bytearray(self.store.read(self.table, offset, count))
        if self.delta is None:
            return data
        first, last = np.searchsorted(
            self.delta.numbers, (offset // PAGE, (offset + count - 1) // PAGE + 1)
        )
        for index in range(first, last):
            at = int(self.delta.numbers[index]) * PAGE
            start, stop = max(at, offset), min(at + PAGE, offset + count)
            page = self.delta.contents[index].tobytes()
            data[start - offset : stop - offset] = page[start - at : stop - at]
        return data


class _Scratch:
    """Room for one comparison, used again and again: fresh memory would cost more than that."""

    def __init__(self) -> None:
        self.old = np.empty((_CHUNK, _WORDS), np.uint64)
        self.differs = np.empty((_CHUNK, _WORDS), np.bool_)


class PageStore:
    """Pages on disk, and the tables that make guest RAMs out of them."""

    def __init__(
        self, file: BinaryIO, ram_bytes: int, sums: NDArray[np.uint32] | None = None
    ) -> None:
        """Use the open `file`, which stays the caller's, for a guest with `ram_bytes` of RAM.

        Without the `sums` of a store that was filled, it is a new one to be filled. One that
        was is only read, and may be shared by processes.
        """
        self._fd = os.dup(file.fileno())
        self.ram_bytes = ram_bytes
        self._writable = sums is None
        self._pages = ram_bytes // PAGE
        self._used = max(1, os.fstat(self._fd).st_size // PAGE)
        self._room = self._used
        self._stored = self._make_room(self._used) if sums is None else self._map()
        self._new_sums = [checksum(bytes(PAGE))]
        self._sums = sums
        self._seen_whole = np.zeros(self._used, np.bool_)

    @property
    def fd(self) -> int:
        """Descriptor of the file, for a lock on it."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes the store takes on disk."""
        return self._used * PAGE

    @property
    def filled(self) -> NDArray[np.uint64]:
        """All slots in place, shape (slots, 512)."""
        return self._stored[: self._used]

    def has(self, content: bytes) -> bool:
        """Whether these bytes are in any page, or were in two whose slots are neighbours."""
        return bool(self._mapped.find(content, 0, self._used * PAGE) >= 0)

    @property
    def sums(self) -> NDArray[np.uint32]:
        """The checksum of each slot."""
        return np.array(self._new_sums, np.uint32) if self._sums is None else self._sums

    def are_whole(self, slots: Table) -> bool:
        """Whether the pages in `slots` are what was stored; a page is looked at once.

        Those that this process stored are.
        """
        if self._sums is None:
            return True
        wanted = np.zeros(self._used, np.bool_)
        wanted[slots] = True
        unseen = np.flatnonzero(wanted & ~self._seen_whole)
        found = np.array([checksum(self._stored[slot]) for slot in unseen], np.uint32)
        whole = found == self._sums[unseen]
        self._seen_whole[unseen[whole]] = True
        return bool(whole.all())

    def put(self, ram: NDArray[np.uint8], before: Table, present: Present) -> Table:
        """Store `ram` and return its table.

        `before` is the table of the checkpoint before it: only pages that differ from
        that are written. Raises OSError when the disk is full; the store then still
        holds what it held.
        """
        pages = ram.view(np.uint64).reshape(-1, _WORDS)
        table, scratch = before.copy(), _Scratch()
        for start in range(0, self._pages, _CHUNK):
            part = slice(start, start + _CHUNK)
            if not present[start // _CHUNK]:
                table[part] = 0
                continue
            new, slots = pages[part], table[part]
            changed = self._changed(new, slots, scratch)
            if changed.size:
                slots[changed] = self._keep(new[changed])
        return table

    def get(self, table: Table, into: NDArray[np.uint8], present: Present) -> None:
        """Make `into` the RAM of `table`."""
        pages = into.view(np.uint64).reshape(-1, _WORDS)
        for start in range(0, self._pages, _CHUNK):
            part = slice(start, start + _CHUNK)
            if table[part].any():
                # With its default mode take would copy through a buffer.
                np.take(self._stored, table[part], axis=0, out=pages[part], mode="clip")
            elif present[start // _CHUNK]:
                pages[part] = 0

    def difference(self, table: Table, ram: NDArray[np.uint8], present: Present) -> Delta:
        """Return the pages of `ram` that differ from the RAM of `table`, as copies."""
        pages = ram.view(np.uint64).reshape(-1, _WORDS)
        numbers, contents, scratch = [], [], _Scratch()
        for start in range(0, self._pages, _CHUNK):
            part = slice(start, start + _CHUNK)
            if not present[start // _CHUNK] and not table[part].any():
                continue
            new = pages[part]
            changed = self._changed(new, table[part], scratch)
            if changed.size:
                numbers.append(changed + start)
                contents.append(new[changed])
        if not numbers:
            return Delta(np.zeros(0, np.intp), np.zeros((0, _WORDS), np.uint64))
        return Delta(np.concatenate(numbers), np.concatenate(contents))

    def equals(self, table: Table, ram: NDArray[np.uint8]) -> bool:
        """Whether `ram` is the RAM of `table`."""
        pages = ram.view(np.uint64).reshape(-1, _WORDS)
        chunks = (slice(start, start + _CHUNK) for start in range(0, self._pages, _CHUNK))
        return all(np.array_equal(self._stored[table[part]], pages[part]) for part in chunks)

    def read(self, table: Table, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` of the RAM of `table`."""
        first, last = offset // PAGE, (offset + count - 1) // PAGE
        data = self._stored[table[first : last + 1]].tobytes()
        start = offset - first * PAGE
        return data[start : start + count]

    def contents(self, slots: Table) -> NDArray[np.uint64]:
        """Return the pages in `slots`, shape (slots, 512)."""
        contents: NDArray[np.uint64] = self._stored[slots]
        return contents

    def empty_table(self) -> Table:
        """Return the table of a RAM that is all zero."""
        return np.zeros(self._pages, dtype=np.uint32)

    def close(self) -> None:
        """Close the file, cut to what it holds."""
        if self._fd >= 0:
            if self._writable:
                os.ftruncate(self._fd, self._used * PAGE)
            os.close(self._fd)
            self._fd = -1

    def _changed(
        self, new: NDArray[np.uint64], slots: Table, scratch: _Scratch
    ) -> NDArray[np.intp]:
        """Return which of the pages `new` are not what `slots` hold."""
        if not slots.any():
            return np.flatnonzero(new.any(axis=1))
        old, differs = scratch.old[: len(new)], scratch.differs[: len(new)]
        np.take(self._stored, slots, axis=0, out=old, mode="clip")
        np.not_equal(new, old, out=differs)
        return np.flatnonzero(differs.any(axis=1))

    def _keep(self, pages: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Store pages and return their slots; zero pages are slot 0."""
        slots = np.zeros(len(pages), dtype=np.uint32)
        filled = pages.any(axis=1)
        slots[filled] = self._append(pages[filled])
        return slots

    def _append(self, pages: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Write pages at the end and return their slots."""
        if self._used + len(pages) > self._room:
            self._stored = self._make_room(self._used + len(pages))
        data = pages.tobytes()
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._used * PAGE + written)
        self._new_sums += map(checksum, pages)
        first = self._used
        self._used += len(pages)
        return np.arange(first, self._used, dtype=np.uint32)

    def _make_room(self, slots: int) -> NDArray[np.uint64]:
        """Return all slots in place, shape (room, 512), with room for at least `slots`."""
        self._room = -(-slots // _ROOM) * _ROOM
        os.ftruncate(self._fd, self._room * PAGE)
        return self._map()

    def _map(self) -> NDArray[np.uint64]:
        self._mapped = mmap.mmap(self._fd, self._room * PAGE, access=mmap.ACCESS_READ)
        return np.frombuffer(self._mapped, dtype=np.uint64).reshape(-1, _WORDS)
