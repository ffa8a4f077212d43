"""A thread's instructions as they come in from two runs."""

from __future__ import annotations

import numpy as np

from retrograde.index.compare.codepages import CodePages
from retrograde.index.compare.lane import FARTHEST, HISTORY, Cause, Lane

HERE, THERE = 0x400000, 0x7F0000400000


def lane() -> Lane:
    pages = CodePages()
    pages.learn(HERE, THERE)
    return Lane(pages)


def push(one: Lane, number: int, start: int, *offsets: int) -> None:
    base = (HERE, THERE)[number]
    positions = np.arange(start, start + len(offsets), dtype=np.int64)
    one.runs[number].push(np.array([base + at for at in offsets], np.uint64), positions)


def test_what_both_have_is_passed_whoever_is_ahead() -> None:
    one = lane()
    push(one, 0, 100, 0, 4, 8)
    assert one.advance() is None
    push(one, 1, 500, 0)
    assert one.advance() is None
    push(one, 1, 900, 4)
    assert one.advance() is None
    assert one.common.positions.tolist() == [[100, 101], [500, 900]]
    assert (one.count, len(one.runs[0]), len(one.runs[1])) == (2, 1, 0)


def test_a_difference_waits_for_enough_to_tell_where_they_meet() -> None:
    one = lane()
    push(one, 0, 100, 0, 4)
    push(one, 1, 500, 0, 8)
    assert one.advance() == (HERE + 4, THERE + 8)
    assert one.differs
    assert not one.sees_enough
    push(one, 0, 102, *[4] * FARTHEST)
    one.runs[1].ended = True
    assert one.sees_enough


def test_a_difference_passed_over_is_remembered_by_what_comes_after() -> None:
    one, cause = lane(), Cause("clock", "a clock")
    push(one, 0, 100, 0, 4, 12)
    push(one, 1, 500, 0, 8, 8, 12)
    assert one.advance() == (HERE + 4, THERE + 8)
    one.pass_over((1, 2), cause)
    assert one.advance() is None
    assert one.common.gaps == [(1, cause)]
    assert one.common.positions.tolist() == [[100, 102], [500, 503]]
    assert one.count == 3


def test_only_the_newest_are_remembered() -> None:
    one = lane()
    more = HISTORY + 5
    for number in (0, 1):
        push(one, number, 0, *np.zeros(more, np.int64).tolist())
    one.advance()
    assert (one.common.count, one.common.forgotten) == (more, 5)
    assert one.common.positions[:, 0].tolist() == [5, 5]
