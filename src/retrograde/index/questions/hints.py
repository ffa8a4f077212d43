"""What the index tells searches: where a break- or watchpoint cannot be hit.

An interval is left out only when that is certain. Code that runs is in `blocks`, whatever
its address space, so a breakpoint whose address is in no block is not hit. A store marks
lines of physical memory; the mapping is not known, but it leaves the place in the page as
it is, so a virtual watchpoint needs a line at its place in any page.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from retrograde.errors import EnvironmentLacks
from retrograde.index.tables.files import Interval
from retrograde.index.tables.store import IndexStore, has_table
from retrograde.machine.probe.page import PAGE_BYTES
from retrograde.machine.probe.request import Watch
from retrograde.recording.bundle import Recording
from retrograde.timeline.hints import lines_of
from retrograde.timeline.search import Stops

MOST_PAGES: Final = 64
"""Pages of a physical watchpoint up to which each is looked up."""

MOST_BREAKPOINTS: Final = 256

_ALL_LINES: Final = (1 << 64) - 1


class IndexHints:
    """The index of a recording as `timeline.hints.Hints`. Made by `of`."""

    def __init__(self, store: IndexStore) -> None:
        self._store, self._state = store, store.state()
        self._connection = store.connect(("blocks", "intervals", "written"))
        self._covered = store.done("blocks")
        whole = "SELECT first FROM intervals WHERE unplaced = 0"
        placed = {first for (first,) in self._connection.execute(whole).fetchall()}
        self._written = {one for one in store.done("written") if one[0] in placed}

    @classmethod
    def of(cls, recording: Recording) -> IndexHints | None:
        """Return the hints of a recording that has an index that can be read, or None.

        Intervals whose files are damaged are as good as not indexed.
        """
        if not has_table(recording, "blocks"):
            return None
        try:
            return cls(IndexStore(recording))
        except EnvironmentLacks:
            return None  # searches are slower, and right all the same

    def _ask(self, query: str, parameters: Any) -> list[Any]:
        """Return the rows of a query. Questions may be asked side by side, by any threads."""
        return self._connection.cursor().execute(query, parameters).fetchall()

    @property
    def is_current(self) -> bool:
        """Whether this is of the index as it is on disk now."""
        return self._store.state() == self._state

    def changed(self, page: int, lines: int, stop: int) -> list[tuple[int, int, bool]]:
        """Return the intervals that begin before `stop` in which lines of a page changed.

        Newest first: first position, last, and whether other than stores changed them. The
        page is given by its physical address, lines as bits.
        """
        return self._ask(
            "SELECT first, last, device & $lines != 0 FROM written "
            "JOIN intervals ON first = interval_first "
            "WHERE page = $page AND (bitmap | device) & $lines != 0 AND first < $stop "
            "ORDER BY first DESC",
            {"lines": lines, "page": page, "stop": stop},
        )

    def spans(self, stops: Stops, start: int, stop: int, *, only_last: bool) -> list[Interval]:
        """Return where hits can be: see `Hints`."""
        if len(stops.breakpoints) > MOST_BREAKPOINTS:
            return [(start, stop)] if start < stop else []
        reached = self._reached(stops)
        touched = self._touched(stops.watches)
        conditional = any(point.conditions or point.checks for point in stops.breakpoints)
        spans: list[Interval] = []
        for low, high, is_indexed in self._cut(start, stop):
            if is_indexed and not (stops.watches and touched.get(low, True)):
                if low not in reached:
                    continue
                first, last, end = reached[low]
                # The last run of a block holds its last hit, if that run is before `stop`.
                begin = last if only_last and not conditional and end <= stop else first
                low, high = begin, min(end, high)
            low, high = max(low, start), min(high, stop)
            if spans and spans[-1][1] == low < high:
                spans[-1] = (spans[-1][0], high)
            elif low < high:
                spans.append((low, high))
        return spans

    def unknown(self, stop: int) -> list[Interval]:
        """Return the spans before `stop` of whose writes not all is known."""
        known = [one for one in self._covered if one in self._written]
        edges = [(0, 0), *known, (stop, stop)]
        gaps = [(left[1], min(right[0], stop)) for left, right in pairwise(edges)]
        return [(first, last) for first, last in gaps if first < last]

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Yield all intervals on the way, and the gaps in the index between them."""
        at = start
        for first, last in self._covered:
            if last <= at or first >= stop:
                continue
            if at < first:
                yield at, first, False
            yield first, last, True
            at = last
        if at < stop:
            yield at, stop, False

    def _reached(self, stops: Stops) -> dict[int, tuple[int, int, int]]:
        """Return, by interval, where the breakpoints' blocks ran: first, last, and their end."""
        reached: dict[int, tuple[int, int, int]] = {}
        for point in stops.breakpoints:
            rows = self._ask(
                "SELECT interval_first, min(first), max(last), max(last + instructions) "
                "FROM blocks WHERE pc BETWEEN ? AND ? AND pc + size_bytes > ? GROUP BY 1",
                [max(0, point.pc - PAGE_BYTES), point.pc, point.pc],
            )
            for interval, first, last, end in rows:
                old = reached.get(interval, (first, last, end))
                reached[interval] = min(old[0], first), max(old[1], last), max(old[2], end)
        return reached

    def _touched(self, watches: tuple[Watch, ...]) -> dict[int, bool]:
        """Return, by interval, whether a watchpoint may be hit in it."""
        touched = {first: False for first, _ in self._written}
        for watch in watches:
            if watch.access != "w":
                return {}
            for interval, marks in self._marks(watch):
                touched[interval] = touched.get(interval, True) or bool(marks)
        return touched

    def _marks(self, watch: Watch) -> list[tuple[int, int]]:
        """Return, by interval, which lines were written that the watch may concern."""
        end = watch.start + watch.length
        pages = range(watch.start // PAGE_BYTES, (end - 1) // PAGE_BYTES + 1)
        if not watch.physical:
            mask = _ALL_LINES if len(pages) > 2 else 0
            for page in pages[:2]:
                mask |= lines_of(watch.start, end, page)
            query = "SELECT interval_first, bit_or(bitmap) & ?::UBIGINT FROM written GROUP BY 1"
            return self._ask(query, [mask])
        if len(pages) > MOST_PAGES:
            return [(first, 1) for first, _ in self._written]
        rows = []
        for page in pages:
            query = "SELECT interval_first, bitmap & ?::UBIGINT FROM written WHERE page = ?"
            marks = [lines_of(watch.start, end, page), page * PAGE_BYTES]
            rows += self._ask(query, marks)
        return rows
