"""Which intervals an index has, and how they are shared out. Pure.

Intervals end where checkpoints are, and in between where checkpoints are far apart. A
replay can begin at checkpoints only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Final

from retrograde.index.tables.files import Interval

LONGEST: Final = 100_000_000
"""Positions in an interval, at most: what bounds the memory that its rows take."""

SHARES: Final = 4
"""Runs that each worker gets, so that all end at about the same time."""


@dataclass(frozen=True)
class Stretch:
    """The intervals from one checkpoint to the next; replaying them took `seconds`."""

    intervals: tuple[Interval, ...]
    seconds: float


def stretches(
    starts: Sequence[tuple[int, float]], end: int, clear_from: Callable[[int], int]
) -> list[Stretch]:
    """Cut a recording at its checkpoints.

    `starts` are their positions, rising, with the seconds the replay from the one before
    took; what lies before the first is replayed from the start. `clear_from` gives the
    first position from one on where the machine has one state only.
    """
    edges = dict.fromkeys((0, *(position for position, _ in starts if position < end)), 0.0)
    seconds = [taken for position, taken in starts if position] + [0.0]
    return [
        Stretch(tuple(_cut(first, last, clear_from)), taken)
        for (first, last), taken in zip(pairwise((*edges, end)), seconds, strict=False)
        if first < last
    ]


def _cut(first: int, last: int, clear_from: Callable[[int], int]) -> list[Interval]:
    inner = (clear_from(at) for at in range(first + LONGEST, last, LONGEST))
    edges = [first, *sorted({at for at in inner if first < at < last}), last]
    return list(pairwise(edges))


def runs(
    plan: Sequence[Stretch], missing: Collection[Interval], starts: Collection[int], jobs: int
) -> list[list[Interval]]:
    """Return runs of neighbouring intervals to be replayed so that all `missing` are made.

    Each begins at 0 or one of `starts` and has about the same replay time. A run may hold
    intervals that are not missing, between a start and one that is.
    """
    wanted: list[list[Stretch]] = []
    lead: list[Stretch] = []
    for stretch in plan:
        if stretch.intervals[0][0] in starts or not stretch.intervals[0][0]:
            lead = []
        lead.append(stretch)
        if any(interval in missing for interval in stretch.intervals):
            wanted.append(lead)
            lead = []
    total = sum(stretch.seconds for lead in wanted for stretch in lead)
    share = total / (jobs * SHARES) if jobs > 1 else float("inf")
    result: list[list[Interval]] = []
    seconds = 0.0
    for lead in wanted:
        first = lead[0].intervals[0][0]
        follows = result and result[-1][-1][1] == first
        begins = first in starts or not first
        if not follows or (seconds >= share and begins):
            result.append([])
            seconds = 0.0
        seconds += sum(stretch.seconds for stretch in lead)
        result[-1] += [interval for stretch in lead for interval in stretch.intervals]
    return result


def identity(plan: Sequence[Stretch]) -> str:
    """Return a digest of where the intervals end."""
    digest = blake2b(digest_size=8)
    for stretch in plan:
        for _, last in stretch.intervals:
            digest.update(last.to_bytes(8, "little"))
    return digest.hexdigest()
