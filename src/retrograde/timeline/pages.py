"""Guest RAM at many positions, each page kept once as long as it does not change.

A checkpoint's RAM is a page table: for every guest page the slot of its content in one
append-only file. Consecutive checkpoints share all pages that did not change between
them, and zero pages take no room. Pure: knows files and arrays, no QEMU.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
_WORDS = PAGE // 8
_CHUNK = 256
"""Pages compared at a time: 1 MiB, so that the comparison stays in the CPU's cache."""

Table = NDArray[np.uint32]
"""Slot of each guest page, shape (pages,); slot 0 is the zero page."""


class PageStore:
    """Pages on disk, and the tables that make guest RAMs out of them."""

    def __init__(self, path: Path, ram_bytes: int) -> None:
        """Open or make the store at `path` for a guest with `ram_bytes` of RAM."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._pages = ram_bytes // PAGE
        self._used = max(1, os.fstat(self._fd).st_size // PAGE)
        if os.fstat(self._fd).st_size < PAGE:
            os.pwrite(self._fd, bytes(PAGE), 0)
        self._map: mmap.mmap | None = None

    @property
    def bytes(self) -> int:
        """Bytes the store takes on disk."""
        return self._used * PAGE

    def put(self, ram: NDArray[np.uint8], before: Table, was: NDArray[np.uint8]) -> Table:
        """Store `ram` and return its table.

        `before` is the table of `was`, the RAM of the previous checkpoint. Only changed
        pages are written. `was` is brought up to date, so that it can serve the next
        call. Raises OSError when the disk is full; the store then still holds what it
        held.
        """
        new, old = _words(ram), _words(was)
        changed = _changed(new, old)
        table = before.copy()
        if changed.size:
            fresh = new[changed]
            filled = fresh.any(axis=1)
            slots = np.zeros(changed.size, dtype=np.uint32)
            slots[filled] = self._append(fresh[filled])
            table[changed] = slots
            old[changed] = fresh
        return table

    def get(self, table: Table, into: NDArray[np.uint8], now: Table | None = None) -> None:
        """Make `into` the RAM of `table`.

        `now`, when known, is the table `into` has at this moment: only pages that differ
        are written.
        """
        wanted = np.arange(self._pages) if now is None else np.flatnonzero(table != now)
        target, slots = _words(into), table[wanted]
        zero = slots == 0
        target[wanted[zero]] = 0
        stored = self._stored()
        for start in range(0, wanted.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            keep = ~zero[part]
            target[wanted[part][keep]] = stored[slots[part][keep]]

    def empty_table(self) -> Table:
        """Return the table of a RAM that is all zero."""
        return np.zeros(self._pages, dtype=np.uint32)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, pages: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Write pages at the end and return their slots."""
        data = pages.tobytes()
        written = 0
        try:
            while written < len(data):
                at = self._used * PAGE + written
                written += os.pwrite(self._fd, data[written:], at)
        except OSError:
            os.ftruncate(self._fd, self._used * PAGE)
            raise
        first = self._used
        self._used += len(pages)
        return np.arange(first, self._used, dtype=np.uint32)

    def _stored(self) -> NDArray[np.uint64]:
        """Return all stored pages in place, shape (slots, 512)."""
        if self._map is None or len(self._map) < self._used * PAGE:
            self._map = mmap.mmap(self._fd, self._used * PAGE, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, dtype=np.uint64).reshape(-1, _WORDS)


def _words(ram: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return ram.view(np.uint64).reshape(-1, _WORDS)


def _changed(new: NDArray[np.uint64], old: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the numbers of the pages that differ."""
    differs = [
        (new[i : i + _CHUNK] != old[i : i + _CHUNK]).any(axis=1) for i in range(0, len(new), _CHUNK)
    ]
    return np.flatnonzero(np.concatenate(differs))
