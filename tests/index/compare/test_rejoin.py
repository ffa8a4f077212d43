"""Ways through a program that part at a jump, written as addresses and levels of calls."""

from __future__ import annotations

import numpy as np
import pytest

from retrograde.index.compare.rejoin import Way, rejoin


def way(*steps: int | tuple[int, int], is_all: bool = False) -> Way:
    pairs = [step if isinstance(step, tuple) else (step, 0) for step in steps]
    pcs, levels = zip(*pairs, strict=True)
    return Way(np.array(pcs, np.uint64), np.array(levels, np.int64), is_all)


LOOP = (10, 11, 12)
AFTER = (20, 21)
CALLER = ((90, -1), (91, -1))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (way(20, 21, *CALLER), way(30, 31, 32, 21, *CALLER), (1, 3)),  # if and else
        (way(21, *CALLER), way(30, (70, 1), (71, 1), 31, 21, *CALLER), (0, 4)),  # if, with a call
        (way(*LOOP, *LOOP, *AFTER, *CALLER), way(*AFTER, *CALLER), (6, 0)),  # more turns
        (way(*AFTER, *CALLER), way(*LOOP, *AFTER, *CALLER), (0, 3)),
        (way(20, *CALLER), way(30, *CALLER), (1, 1)),  # they meet in the caller only
    ],
)
def test_where_they_meet(ours: Way, theirs: Way, expected: tuple[int, int]) -> None:
    assert rejoin(ours, theirs) == expected


def test_a_loop_is_left_by_the_same_turn_of_the_outer_one() -> None:
    """The nearest place that is alike is in the next outer turn: the wrong one."""
    inner, outer = (10, 11), (15, 16)
    rest = (*outer, *inner, *outer, 30, *CALLER)
    assert rejoin(way(*outer, *inner, *outer, 30, *CALLER), way(*inner, *inner, *rest)) == (0, 4)


def test_a_function_called_again_is_not_the_one_they_parted_in() -> None:
    again = ((90, -1), (10, 0), (11, 0), (12, 0), (20, 0), (92, -1))
    longer = way(*LOOP, *LOOP, *LOOP, 20, *again)
    assert rejoin(longer, way(20, *again)) == (9, 0)


def test_an_if_in_a_loop_is_left_in_the_same_turn() -> None:
    ours = way(20, 25, 10, 30, 25, 10, 40, *CALLER)
    theirs = way(30, 25, 10, 20, 25, 10, 40, *CALLER)
    assert rejoin(ours, theirs) == (1, 1)


def test_where_one_does_not_come_out_that_is_told() -> None:
    assert rejoin(way(*LOOP, *LOOP), way(*AFTER, *CALLER)) is None


def test_two_that_return_elsewhere_do_not_meet() -> None:
    assert rejoin(way(20, (90, -1)), way(30, (95, -1))) is None


def test_both_may_end_without_having_met() -> None:
    assert rejoin(way(20, is_all=True), way(30, 31, is_all=True)) == (1, 2)
    assert rejoin(way(20, is_all=True), way(30, 31)) is None
