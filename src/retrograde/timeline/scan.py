"""What searches have found so far: spans of which all hits are known.

A search replays a whole interval and finds all hits in it, one of which is the answer. Whoever
goes on from there asks for the next one, and is answered from here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.probe.page import RECORD
from retrograde.machine.probe.record import is_access

Records = NDArray[np.void]
"""The probe's records (machine.probe.page.RECORD), by position."""

RECORDS_KEPT = 1 << 19
"""Of one scan; 72 bytes each."""


class _Span(NamedTuple):
    """Hits up to before `stop`; `positions` are theirs, apart because they are looked up."""

    stop: int
    records: Records
    positions: NDArray[np.uint64]

    def from_(self, position: int, side: Literal["left", "right"] = "left") -> int:
        """Return the index of the first hit at `position` or, on the right, behind it."""
        return int(np.searchsorted(self.positions, np.uint64(position), side))


class Scan:
    """Disjoint spans, and all hits of one set of break- and watchpoints in each."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._spans: list[_Span] = []
        self._kept = 0

    def add(self, start: int, stop: int, records: Records) -> None:
        """Take note that `records` are all hits at positions from `start` to before `stop`.

        What of that was known already stays.
        """
        if self._kept + len(records) > RECORDS_KEPT:
            self.forget()
        at = start
        while at < stop:
            known = self._span_at(at)
            if known is not None:
                at = self._spans[known].stop
                continue
            index = bisect_right(self._starts, at)
            end = min([stop, *self._starts[index : index + 1]])
            inside = records[(records["position"] >= at) & (records["position"] < end)]
            self._starts.insert(index, at)
            positions = np.ascontiguousarray(inside["position"])
            self._spans.insert(index, _Span(end, inside.copy(), positions))
            self._kept += len(inside)
            at = end

    def forget(self) -> None:
        """Know nothing any more."""
        self._starts, self._spans, self._kept = [], [], 0

    def next(self, start: int, stop: int, passed: int) -> tuple[np.void | None, int]:
        """Return the first hit on the way from `start` to `stop`, and how far the way is known.

        A breakpoint at `passed` does not count.
        """
        at = start
        while at < stop and (known := self._span_at(at)) is not None:
            span = self._spans[known]
            for record in span.records[span.from_(at) :]:
                if record["position"] >= stop:
                    return None, stop
                if record["position"] != passed or is_access(record):
                    return record, at
            at = span.stop
        return None, min(at, stop)

    def last(self, start: int, stop: int) -> tuple[np.void | None, int]:
        """Return the last hit from `start` to before `stop`, and from where on there is none."""
        at = stop
        while at > start and (known := self._span_at(at - 1)) is not None:
            span = self._spans[known]
            before = span.from_(at)
            if before and span.positions[before - 1] >= start:
                return span.records[before - 1], at
            at = self._starts[known]
        return None, max(at, start)

    def around(self, position: int, count: int, *, forward: bool) -> Records:
        """Return up to `count` known hits from `position` on, or before and at it."""
        known = self._span_at(position)
        if known is None:
            return np.zeros(0, RECORD)
        span = self._spans[known]
        if forward:
            begin = span.from_(position)
            return span.records[begin : begin + count]
        end = span.from_(position, "right")
        return span.records[max(0, end - count) : end]

    def knows(self, position: int) -> bool:
        """Whether what is hit at `position` is known."""
        return self._span_at(position) is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been added."""
        return not self._starts

    def _span_at(self, position: int) -> int | None:
        index = bisect_right(self._starts, position) - 1
        return index if index >= 0 and position < self._spans[index].stop else None


def gaps(spans: Sequence[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Return what of `start` to `stop` is in none of `spans`, which are disjoint and rise."""
    edges = [start, *(edge for span in spans for edge in span), stop]
    return [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if low < high]
