"""Two sequences of calls made on one stack, compared past what interrupts put between.

An interrupt's handler runs below what it interrupted, so its calls begin after a delivery
and end, at the latest, with the first call from above the place where they began. Where
exactly they end shows only in the other run, which goes on with the interrupted code's
next call. So the two are compared call by call, and where they differ in or right after a
handler, whole calls are left out up to the next that both make.

The first call of a handler is one that only ever comes after a delivery: a call site that
also ran without one is the program's own, and nothing it calls is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TRIED: Final = (64, 1 << 16)
"""Calls of each side tried for where a handler ended: at first, and at most."""
NESTED: Final = 64
"""Handlers begun before a call among which those that it may be inside of are looked for."""
_FIRST_LOOK: Final = 64
"""Calls looked at first; then 16 times as many."""


@dataclass(frozen=True)
class Calls:
    """Calls made on one stack, in order: positions, addresses, the stack pointer before.

    `returned` is the position after the return, 0 where that is not known. `delivered`
    says of each whether it comes shortly after a delivery, with no other call since, and
    `interrupted` whether that was an interrupt and no exception.
    """

    position: NDArray[np.int64]
    pc: NDArray[np.uint64]
    target: NDArray[np.uint64]
    sp: NDArray[np.uint64]
    returned: NDArray[np.int64]
    interrupted: NDArray[np.bool_]
    delivered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def own(self) -> NDArray[np.uint64]:
        """The call sites that ran without a delivery before."""
        return np.unique(self.pc[~self.delivered])


@dataclass(frozen=True)
class Alignment:
    """How far two sequences are equal.

    `common` calls are in both, `skipped` are taken for those of handlers, on each side.
    `stop` holds the numbers of the two calls that differ first, or of what is left over
    where one side has ended; `last` those of the last common call.
    """

    common: int
    skipped: tuple[int, int]
    stop: tuple[int, int]
    last: tuple[int, int] | None
    parted: bool


def align(ours: Calls, theirs: Calls) -> Alignment:
    """Compare two sequences of calls made on the same stack."""
    own = np.union1d(ours.own, theirs.own)
    sides = _Side(ours, own), _Side(theirs, own)
    common, skipped = 0, [0, 0]
    at, last = (0, 0), None
    while True:
        equal = _equal(ours, theirs, at)
        if equal:
            common, at = common + equal, (at[0] + equal, at[1] + equal)
            last = (at[0] - 1, at[1] - 1)
        if at[0] == len(ours) or at[1] == len(theirs):
            return Alignment(common, (skipped[0], skipped[1]), at, last, parted=False)
        after, parted = _meet(sides, at)
        skipped = [skipped[side] + after[side] - at[side] for side in (0, 1)]
        at = after
        if parted:
            return Alignment(common, (skipped[0], skipped[1]), at, last, parted=True)


class _Side:
    """One sequence, and where handlers may begin in it."""

    def __init__(self, calls: Calls, own: NDArray[np.uint64]) -> None:
        self.calls = calls
        begins = np.flatnonzero(calls.interrupted)
        self._heads = begins[~np.isin(calls.pc[begins], own)]

    def ways(self, start: int, most: int) -> NDArray[np.int64]:
        """Return the calls that may come next for the program itself, `start` first.

        Those after it are what follows whole calls, at most so many, up to the end of the
        handler that `start` is in. The number of calls stands for the end of the sequence.
        """
        level = self._level(start)
        if level is None:
            return np.array([start], np.int64)
        sp, size = self.calls.sp, _FIRST_LOOK
        while True:
            above = np.flatnonzero(sp[start : start + size] > level)[:1]
            stop = start + int(above[0]) + 1 if above.size else start + size
            whole = self._outside(slice(start, stop))
            if above.size or len(whole) >= most:
                return start + np.concatenate([[0], whole[:most]])
            if start + size >= len(sp):
                return np.concatenate([[start], start + whole, [len(sp)]])
            size *= 16

    def _outside(self, part: slice) -> NDArray[np.int64]:
        """Return which calls are made by none of those before them in this part."""
        calls = self.calls
        returned, sp = calls.returned[part], calls.sp[part]
        open_sp = np.where(returned == 0, sp, 0)
        over = calls.position[part][1:] >= np.maximum.accumulate(returned)[:-1]
        return np.flatnonzero(over & (sp[1:] >= np.maximum.accumulate(open_sp)[:-1])) + 1

    def keys(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return what makes calls equal, of those with these numbers but for the end."""
        known = numbers[numbers < len(self.calls)]
        pairs = np.stack([self.calls.pc[known], self.calls.target[known]], axis=1)
        return pairs.view([("pc", np.uint64), ("target", np.uint64)])[:, 0]

    def _level(self, start: int) -> int | None:
        """Return the stack pointer of the outermost handler that `start` is in; None: in none."""
        sp, stop = self.calls.sp, int(np.searchsorted(self._heads, start, side="right"))
        heads = self._heads[max(0, stop - NESTED) : stop]
        if not heads.size:
            return None
        highest = np.maximum.reduceat(sp[heads[0] : start + 1], heads - heads[0])
        since = np.maximum.accumulate(highest[::-1])[::-1]
        around = np.flatnonzero(since == sp[heads])
        return int(sp[heads[around[0]]]) if around.size else None


def _equal(ours: Calls, theirs: Calls, at: tuple[int, int]) -> int:
    """Return how many calls are equal from there on."""
    (one, other), size = at, _FIRST_LOOK
    while True:
        left, right = slice(one, one + size), slice(other, other + size)
        most = min(len(ours.pc[left]), len(theirs.pc[right]))
        differs = np.flatnonzero(
            (ours.pc[left][:most] != theirs.pc[right][:most])
            | (ours.target[left][:most] != theirs.target[right][:most])
        )
        done = int(differs[0]) if differs.size else most
        one, other = one + done, other + done
        if differs.size or most < size:
            return one - at[0]
        size = min(size * 16, 1 << 20)


def _meet(sides: tuple[_Side, _Side], at: tuple[int, int]) -> tuple[tuple[int, int], bool]:
    """Return where both go on alike, the least left out; or the ends of handlers, and True."""
    for most in TRIED:
        ours, theirs = (side.ways(start, most) for side, start in zip(sides, at, strict=True))
        keys = sides[0].keys(ours), sides[1].keys(theirs)
        _, left, right = np.intersect1d(*keys, return_indices=True)  # the first of each
        if left.size:
            least = np.argmin(left + right)
            return (int(ours[left[least]]), int(theirs[right[least]])), False
    ends = int(ours[-1]), int(theirs[-1])
    return ends, ends[0] < len(sides[0].calls) and ends[1] < len(sides[1].calls)
