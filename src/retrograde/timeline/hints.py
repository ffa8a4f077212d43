"""What may be known of a recording without a replay, and so leave out of a search or question.

The timeline only says what it asks; an index answers (index.questions.hints).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from retrograde.machine.probe.page import LINE_BYTES, PAGE_BYTES

if TYPE_CHECKING:
    from retrograde.timeline.search import Stops

Span = tuple[int, int]
"""Positions from the first to before the second."""

Change = tuple[int, int, bool]
"""A span in which memory changed, and whether other than stores may have changed it."""


class Hints(Protocol):
    """What is known of a recording without a replay.

    Looking it up may wait for a disk: it is done in threads, several at once.
    """

    def spans(self, stops: Stops, start: int, stop: int, *, only_last: bool) -> list[Span]:
        """Return disjoint spans, rising, of the positions from `start` to before `stop`.

        No hit of `stops` is outside of them; with `only_last` the last one is in them, and
        others may not be.
        """

    def changed(self, page: int, lines: int, stop: int) -> Sequence[Change]:
        """Return spans that begin before `stop` in which lines of a page changed, newest first.

        The page is given by its physical address, lines as bits. Of what is in none of them,
        nor in those of `unknown`, nothing changed there.
        """

    def unknown(self, stop: int) -> list[Span]:
        """Return the spans before `stop` of whose changes not all is known."""


def lines_of(start: int, end: int, page: int) -> int:
    """Return which lines of `page` the bytes from `start` to before `end` are in, as bits."""
    first = max(start, page * PAGE_BYTES) % PAGE_BYTES // LINE_BYTES
    last = (min(end, (page + 1) * PAGE_BYTES) - 1) % PAGE_BYTES // LINE_BYTES
    return (1 << last + 1) - (1 << first)
