"""Where two ways through a program, which parted at a jump, go on alike.

That is the first place in the function that each way out of it passes, whatever turns loops take
(the immediate post-dominator of the jump), or where the function was called. Which ways there are
is taken from what both ran. Pure: addresses and levels of calls in, numbers out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrograde.index.compare.codepages import Addresses

_END: Final = -1
"""The node of the graph that stands for what comes after the function."""


class Way(NamedTuple):
    """Instructions from the parting on, and how deep in calls each is, the first at 0.

    With `is_all` the thread ends with them.
    """

    addresses: Addresses
    levels: NDArray[np.int64]
    is_all: bool


def rejoin(ours: Way, theirs: Way) -> tuple[int, int] | None:
    """Return after how many instructions of each both go on alike; None: that is not seen.

    Addresses are those of one run.
    """
    one, other = _in_function(ours), _in_function(theirs)
    follows: defaultdict[int, set[int]] = defaultdict(set)
    for way, inside in ((ours, one), (theirs, other)):
        for node, following in _pairs(way.addresses[inside]):
            follows[node].add(following)
    starts = [int(way.addresses[inside[0]]) for way, inside in ((ours, one), (theirs, other))]
    places = [_first_places(way, inside) for way, inside in ((ours, one), (theirs, other))]
    for node, at in places[0].items():
        if node in places[1] and not _reaches_end(follows, starts, node):
            return at, places[1][node]
    return _after(ours, theirs)


def _after(ours: Way, theirs: Way) -> tuple[int, int] | None:
    """Return where both have returned from the function."""
    ends = _end(ours), _end(theirs)
    if ends[0] == len(ours.levels) or ends[1] == len(theirs.levels):
        is_end = ends[0] == len(ours.levels) and ends[1] == len(theirs.levels)
        return ends if is_end and ours.is_all and theirs.is_all else None
    is_same = ours.addresses[ends[0]] == theirs.addresses[ends[1]]
    return ends if is_same else None


def _end(way: Way) -> int:
    """Return the number of the first instruction that is no more in the function."""
    outside = np.flatnonzero(way.levels < 0)
    return int(outside[0]) if len(outside) else len(way.levels)


def _in_function(way: Way) -> NDArray[np.int64]:
    """Return the numbers of the instructions that are in the function itself."""
    return np.flatnonzero(way.levels[: _end(way)] == 0)


def _pairs(addresses: Addresses) -> list[tuple[int, int]]:
    """Return which instruction came after which; after the last one is the end."""
    steps = np.stack([addresses[:-1], addresses[1:]], axis=1)
    pairs = [(int(node), int(following)) for node, following in np.unique(steps, axis=0)]
    return [*pairs, (int(addresses[-1]), _END)]


def _first_places(way: Way, inside: NDArray[np.int64]) -> dict[int, int]:
    """Return where each instruction of the function came first, in that order."""
    found, first = np.unique(way.addresses[inside], return_index=True)
    order = np.argsort(first)
    places = inside[first[order]].tolist()
    return dict(zip(found[order].tolist(), places, strict=True))


def _reaches_end(follows: dict[int, set[int]], starts: list[int], without: int) -> bool:
    """Whether a way leads to the end without an instruction."""
    seen = {without}
    left = [node for node in starts if node != without]
    while left:
        node = left.pop()
        if node == _END:
            return True
        if node not in seen:
            seen.add(node)
            left += follows.get(node, ())
    return False
