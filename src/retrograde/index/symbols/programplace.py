"""Where a user program is mapped: in which address spaces, how far from its linked addresses.

A program's code is in memory as it is in its file. So pieces of it are looked for, each at its
place in a page, and then the address spaces in which they lie as far from each other as in the
file (see `pagetables`). The note with the build id is a piece like others, and one that decides.

Pure: memory in, places out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrograde.index.symbols.pagetables import Numbers, PageTables
from retrograde.timeline.pages import PAGE, Table

PIECE_BYTES: Final = 64
MOST_PIECES: Final = 256
_ALIKE: Final = 8
"""So many pieces must be right for each that is not: a debugger in the guest may patch code."""
_TRIED: Final = 1 << 10
"""Places tried at most: a guest has no more processes of one program, but may pretend to."""


class Piece(NamedTuple):
    """Bytes of a program within one page, and the address where they were linked."""

    address: int
    content: bytes


class Place(NamedTuple):
    """A program in the address space of a root table, `base` above where it was linked."""

    root: int
    base: int


class Stay(NamedTuple):
    """A place, from position `first` to before `last` at most: it was looked for at moments."""

    place: Place
    first: int
    last: int


class Program:
    """Pieces of a program, looked for in pages, shape (pages, 512)."""

    def __init__(self, pieces: Iterable[Piece], pages: NDArray[np.uint64]) -> None:
        """Pieces that lie across a page border, or say nothing, are not looked for."""
        fit = (piece for piece in pieces if _can_be_found(piece))
        self._pieces = list(dict.fromkeys(fit))[:MOST_PIECES]
        data = pages.view(np.uint8).reshape(len(pages), PAGE)
        self._found = [_pages_with(data, piece) for piece in self._pieces]
        self.slots = np.unique(np.concatenate([np.zeros(0, np.int64), *self._found]))

    def places(self, tables: PageTables, table: Table) -> list[Place]:
        """Return where the program is in a memory that has pages as `table` says."""
        votes: Counter[Place] = Counter()
        for piece, slots in zip(self._pieces, self._found, strict=True):
            pages = np.flatnonzero(np.isin(table, slots)) if len(slots) else slots
            mapped = tables.mapping(table, pages)
            bases = mapped.address - (piece.address & -PAGE)
            pairs = zip(mapped.root.tolist(), bases.tolist(), strict=True)
            votes.update(Place(root, base) for root, base in set(pairs) if base >= 0)
        tried = (place for place, _ in votes.most_common(_TRIED))
        return sorted(place for place in tried if self._is_at(place, tables, table))

    def _is_at(self, place: Place, tables: PageTables, table: Table) -> bool:
        """Whether all pieces that are mapped there, or nearly, are the program's."""
        right = wrong = 0
        for piece, slots in zip(self._pieces, self._found, strict=True):
            page = tables.page_at(table, place.root, place.base + piece.address)
            if page is not None:
                is_right = int(table[page]) in slots
                right, wrong = right + is_right, wrong + (not is_right)
        return right > _ALIKE * wrong


def stays(
    program: Program, tables: PageTables, moments: Sequence[tuple[int, Table]], end: int
) -> list[Stay]:
    """Return where the program was at `moments`, positions and tables that rise.

    A stay begins after the moment before it and lasts to the one after it.
    """
    open_since: dict[Place, int] = {}
    found, before = [], 0
    for position, table in moments:
        has_code = bool(np.isin(table, program.slots).any())
        now = set(program.places(tables, table)) if has_code else set()
        for place in [place for place in open_since if place not in now]:
            found.append(Stay(place, open_since.pop(place), position))
        for place in now:
            open_since.setdefault(place, before)
        before = position + 1
    found += [Stay(place, first, end + 1) for place, first in open_since.items()]
    return sorted(found, key=lambda stay: (stay.first, stay.place))


def _can_be_found(piece: Piece) -> bool:
    offset, size = piece.address % PAGE, len(piece.content)
    return 0 < size <= PAGE - offset and len(set(piece.content)) > 1


def _pages_with(data: NDArray[np.uint8], piece: Piece) -> Numbers:
    """Return the pages that hold a piece where it is in its page."""
    offset, content = piece.address % PAGE, np.frombuffer(piece.content, np.uint8)
    pages = np.arange(len(data))
    for at in range(0, len(content), 8):  # few pages are left after the first
        part = content[at : at + 8]
        pages = pages[(data[pages, offset + at : offset + at + len(part)] == part).all(axis=1)]
    return pages
