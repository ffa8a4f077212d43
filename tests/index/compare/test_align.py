"""Sequences of calls with handlers in between: random ones, made so that the answer is known."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.index.compare.align import Calls, align

TOP = 0x9000
FRAME = 64
SITES = 6

Row = tuple[int, int, int, bool]
"""Call site, function called, stack pointer, whether it is the first after a delivery."""


def calls(
    rows: Sequence[Row], *, exceptions: bool = False, returned: Sequence[int] | None = None
) -> Calls:
    """Calls at the positions 1, 2, …; it is not known when they return unless `returned`."""
    pc, target, sp, begins = zip(*rows, strict=True) if rows else ((), (), (), ())
    delivered = np.array(begins, bool)
    interrupted = np.zeros(len(rows), bool) if exceptions else delivered
    position = np.arange(1, len(rows) + 1)
    if returned is None:
        returned = [0] * len(rows)
    return Calls(
        position,
        *(np.array(column, np.uint64) for column in (pc, target, sp)),
        returned=np.array(returned, np.int64),
        interrupted=interrupted,
        delivered=delivered,
    )


def program(chance: random.Random, length: int) -> list[Row]:
    """What a program calls, at any depth; every site runs once before all else."""
    rows = [(site, 100 + site, TOP, False) for site in range(SITES)]
    depth = 0
    for _ in range(length):
        depth = chance.randint(max(0, depth - 3), min(depth + 1, 12))
        site = chance.randrange(SITES)
        rows.append((site, 100 + chance.choice([site, 50]), TOP - FRAME * depth, False))
    return rows


def handler(chance: random.Random, sp: int, nested: int = 0) -> list[Row]:
    """The calls of a handler that interrupts code with that stack pointer, maybe none."""
    kind = chance.randrange(3)
    if kind == 0:
        return []
    rows = [(200 + kind, 300 + kind, sp - 40, True)]
    for _ in range(chance.randrange(3)):  # inside of the first, functions the program has, too
        rows.append((chance.choice([210, 2]), 310, sp - 80, False))
        if nested < 2 and chance.random() < 0.3:
            rows += handler(chance, sp - 100, nested + 1)
    rows += [(220 + kind, 320, sp - 48, False)] * chance.randrange(3)
    return rows


def interrupted(
    chance: random.Random, rows: Sequence[Row], share: float
) -> tuple[list[Row], list[int]]:
    """Return the calls with handlers between, and which of them are the program's own."""
    ran: list[Row] = []
    own = []
    for before, row in zip([None, *rows], rows, strict=False):
        if before and chance.random() < share:
            # By what called last, what it called, or whatever returned until the next call.
            sp = chance.randrange(min(before[2] - FRAME, row[2]), row[2] + 1, FRAME)
            for _ in range(chance.randint(1, 3)):
                ran += handler(chance, sp)
        own.append(len(ran))
        ran.append(row)
    return ran, own


@given(st.integers(0, 2**32), st.integers(0, 300), st.sampled_from([0.0, 0.05, 0.5]))
def test_runs_that_differ_in_interrupts_alone(seed: int, length: int, share: float) -> None:
    chance = random.Random(seed)
    rows = program(chance, length)
    (ours, _), (theirs, _) = (interrupted(chance, rows, share) for _ in range(2))
    found = align(calls(ours), calls(theirs))
    assert not found.parted
    assert found.stop == (len(ours), len(theirs))
    assert [found.common + gone for gone in found.skipped] == [len(ours), len(theirs)]
    assert found.common >= len(rows)


@given(
    st.integers(0, 2**32),
    st.integers(1, 300),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from(["another", "one more", "one less"]),
)
def test_the_first_call_that_differs(seed: int, length: int, share: float, change: str) -> None:
    chance = random.Random(seed)
    rows = program(chance, length)
    at = chance.randrange(SITES, len(rows))
    after = [] if change == "one less" else [(3, 999, rows[at][2], False)]
    changed = [*rows[:at], *after, *rows[at + (change != "one more") :]]
    (ours, own), (theirs, other) = (interrupted(chance, some, share) for some in (rows, changed))
    found = align(calls(ours), calls(theirs))
    while at < min(len(rows), len(changed)) and rows[at][:2] == changed[at][:2]:
        at += 1  # one less of several that are equal is a difference after the last of them
    if at == len(changed):
        assert not found.parted
    else:
        assert found.parted
        assert found.stop == (own[at], other[at])


def test_many_handlers_in_one_long_function() -> None:
    """More than are tried at first, with two calls each; the other run has none."""
    ticks = [(200, 300, TOP - 40, True), (201, 301, TOP - 40, False)] * 500
    own = [(1, 2, TOP, False), (3, 4, TOP, False)]
    found = align(calls([own[0], *ticks, own[1]]), calls(own))
    assert (found.common, found.skipped, found.parted) == (2, (1000, 0), False)


def test_a_function_interrupted_before_it_made_its_frame() -> None:
    """What it calls then comes from below where the handler's calls came from."""
    own = [(1, 2, TOP, False), (3, 4, TOP - 400, False), (5, 6, TOP - 400, False)]
    tick = [(200, 300, TOP - 48, True), (201, 301, TOP - 88, False)]
    found = align(calls([own[0], *tick, *own[1:]], returned=[0, 3, 4, 5, 6]), calls(own))
    assert (found.common, found.skipped, found.parted) == (3, (2, 0), False)


def test_handlers_of_exceptions_are_the_programs_own() -> None:
    own = [(1, 2, TOP, False), (3, 4, TOP, False)]
    fault = [own[0], (200, 300, TOP - 40, True), own[1]]
    found = align(calls(fault, exceptions=True), calls(own))
    assert (found.parted, found.stop) == (True, (1, 1))


@pytest.mark.parametrize("begins", [False, True])
def test_a_site_that_also_runs_without_an_interrupt_is_the_programs_own(begins: bool) -> None:
    own = [(1, 2, TOP, False), (3, 4, TOP, begins), (3, 5, TOP, False)]
    found = align(calls(own), calls([own[0], own[2]]))
    assert (found.parted, found.stop, found.last) == (True, (1, 1), (0, 0))


def test_a_recording_that_ends_in_a_handler() -> None:
    own = [(1, 2, TOP, False), (3, 4, TOP, False)]
    found = align(calls([own[0], (200, 300, TOP - 40, True)]), calls(own))
    assert (found.common, found.skipped, found.parted) == (1, (1, 0), False)
