"""Which code of one process is which of another's, run by run and page by page.

Programs, libraries and what the kernel maps lie elsewhere in each run, each as a whole: so pages
are learned as code in them is met, and what was learned of one holds for its neighbours, which
are moved by as much. Pure: addresses in, numbers out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]

PAGE_BITS: Final = 12
_NOWHERE: Final = np.uint64(1 << 63)
"""Marks addresses of which nothing is known: programs have none above the middle."""
_WORD: Final = (1 << 64) - 1


class CodePages:
    """How far the pages of ours are moved in theirs, as far as that is known."""

    def __init__(self) -> None:
        self._moved: dict[int, int] = {}
        self._back: dict[int, int] = {}
        self.moves: set[int] = set()
        """By how much what is mapped was found to be moved, modulo 2**64."""

    def equal(self, ours: Addresses, theirs: Addresses) -> int:
        """Return how many instructions are the same, and learn of pages moved like others.

        That ends before the first that is elsewhere, or of which that is not known.
        """
        size = min(len(ours), len(theirs))
        ours, theirs = ours[:size], theirs[:size]
        moved = theirs - ours
        pages, first, which = np.unique(
            ours >> np.uint64(PAGE_BITS), return_index=True, return_inverse=True
        )
        new = {}
        expected, is_known = np.zeros(len(pages), np.uint64), np.zeros(len(pages), np.bool_)
        for number, page in enumerate(pages.tolist()):
            by = self._moved.get(page)
            if by is None and (here := int(moved[first[number]])) in self.moves:
                by = new[number] = here
            if by is not None:
                expected[number], is_known[number] = by, True
        others = np.flatnonzero((moved != expected[which]) | ~is_known[which])
        end = int(others[0]) if len(others) else size
        for number, by in new.items():
            if first[number] < end:
                self._learn(int(pages[number]), by)
        return end

    def may_be(self, ours: int, theirs: int) -> bool:
        """Whether two addresses can be of one instruction in a page not met so far."""
        return (ours ^ theirs) % (1 << PAGE_BITS) == 0

    def learn(self, ours: int, theirs: int) -> None:
        """Have the pages of two addresses be the same."""
        by = theirs - ours & _WORD
        self.moves.add(by)
        self._learn(ours >> PAGE_BITS, by)

    def is_moved(self, ours: int, theirs: int) -> bool:
        """Whether two numbers are the same, or can be addresses of the same."""
        return ours == theirs or (theirs - ours & _WORD) in self.moves

    def as_ours(self, theirs: Addresses) -> Addresses:
        """Return where ours has the code at addresses of theirs; unknown ones are no addresses."""
        pages, which = np.unique(theirs >> np.uint64(PAGE_BITS), return_inverse=True)
        back = [self._back.get(page) for page in pages.tolist()]
        moved = np.array([by or 0 for by in back], np.uint64)
        unknown = np.array([by is None for by in back], np.bool_)
        translated: Addresses = theirs - moved[which]
        return np.where(unknown[which], _NOWHERE | theirs, translated)

    def _learn(self, page: int, by: int) -> None:
        self._moved[page] = by
        self._back[page + (by >> PAGE_BITS) & (_WORD >> PAGE_BITS)] = by
