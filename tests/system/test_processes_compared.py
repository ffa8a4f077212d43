"""A program of a Linux guest in two runs, compared by `diff --process` and by single steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import retrograde as library
from retrograde.recording.bundle import Recording
from tests.command import assert_error, retrograde

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

Linux = Callable[..., Recording]
Step = tuple[int, int]
CURRENT = "init#2"
"""The first child of /init."""


@pytest.fixture(scope="module")
def both(linux: Linux, family: Path) -> tuple[Recording, Recording]:
    """Two runs, of which the second does something else at its end; with the program's names."""
    runs = linux("inputs"), linux("inputs-odd")
    for run in runs:
        assert retrograde("index", run.path).status == 0
        assert retrograde("query", run.path, "--symbols", family, "FROM symbols").status == 0
    return runs


def compare(both: tuple[Recording, Recording], *options: str, process: str = CURRENT) -> Any:
    paths = [run.path for run in both]
    done = retrograde("diff", "--json", *paths, "--process", process, *options)
    assert done.status in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert done.status == (found["parting"] is not None)
    return found


def stepped(run: Recording, begun: int, count: int) -> list[Step]:
    """Step from where a program begins; return positions and pcs of `count` steps in it."""
    found: list[Step] = []
    space = None
    with library.open(run.path).timeline(at=begun) as timeline:
        while len(found) < count:
            registers = timeline.registers()
            if registers["cs"] & 3 == 3 and space in (None, registers["cr3"]):
                space = registers["cr3"]
                found.append((timeline.position, registers["rip"]))
            timeline.step()
    return found


def first_other(ours: list[Step], theirs: list[Step]) -> int:
    """Return how many steps are the same, addresses taken from the first."""
    both = zip(ours, theirs, strict=True)
    return next(n for n, ((_, a), (_, b)) in enumerate(both) if a - ours[0][1] != b - theirs[0][1])


def test_where_they_part_is_where_single_steps_do(both: tuple[Recording, Recording]) -> None:
    found = compare(both)
    first = found["passed"][0]
    count = first["instructions"]
    sides = zip(both, found["begun"], strict=True)
    ours, theirs = (stepped(run, begun, count + 1) for run, begun in sides)
    assert first_other(ours, theirs) == count
    assert first["position"] == [ours[count][0], theirs[count][0]]
    assert first["pc"] == [ours[count][1], theirs[count][1]]
    assert first["before"] == [ours[count - 1][0], theirs[count - 1][0]]


def test_a_process_that_does_the_same(both: tuple[Recording, Recording]) -> None:
    """The first process only passes on what the kernel's command line says."""
    found = compare(both, process="init#1")
    assert (found["parting"], found["passed"]) == (None, [])
    ours, theirs = (
        stepped(run, begun, 20) for run, begun in zip(both, found["begun"], strict=True)
    )
    assert ours[0][1] != theirs[0][1]  # it is mapped elsewhere
    assert [pc - ours[0][1] for _, pc in ours] == [pc - theirs[0][1] for _, pc in theirs]


def test_clocks_are_named_and_passed_over(both: tuple[Recording, Recording]) -> None:
    found = compare(both)
    assert [one["cause"] for one in found["passed"]] == ["clock", "clock"]
    assert "rdtsc" in found["passed"][0]["because"]
    assert "clock_gettime" in found["passed"][1]["because"]
    for one in found["passed"]:
        assert 0 in one["skipped"]  # one works longer, the other goes on
    assert found["parting"]["cause"] == "call"
    assert "system call 318" in found["parting"]["because"]  # getrandom
    assert all(name.startswith("count_up+") for name in found["parting"]["symbol"])


def test_other_inputs_are_passed_over_when_that_is_asked_for(
    both: tuple[Recording, Recording],
) -> None:
    found = compare(both, "--past", "inputs")
    assert [one["cause"] for one in found["passed"]] == ["clock", "clock", "call"]
    parting = found["parting"]
    assert [name.split("+")[0] for name in parting["symbol"]] == ["begin", "begin"]
    ours, theirs = parting["position"]
    for run, position, expected in ((both[0], ours, False), (both[1], theirs, True)):
        with library.open(run.path).timeline(at=position) as timeline:
            timeline.step(30)
            calls = retrograde(
                *("query", "--json", run.path),
                "SELECT name FROM functions WHERE module = 'family' "
                f"AND position BETWEEN {position} AND {timeline.position}",
            ).json()
        assert ("take_another_way" in [row["name"] for row in calls]) is expected


def test_a_thread_that_waits_for_another(both: tuple[Recording, Recording]) -> None:
    found = compare(both, process="init#3")
    assert found["threads"] == 2
    assert found["parting"]["cause"] == "thread"
    assert all(name.startswith("wait_for_thread") for name in found["parting"]["symbol"])


def test_a_run_is_like_itself(both: tuple[Recording, Recording]) -> None:
    found = compare((both[0], both[0]))
    assert (found["parting"], found["passed"]) == (None, [])
    begun = found["begun"][0]
    sql = (
        "SELECT position, value, kind FROM context WHERE kind = 'privilege' "
        f"AND position > {begun} ORDER BY position"
    )
    rows = retrograde("query", "--json", both[0].path, sql).json()
    spans = [b["position"] - a["position"] for a, b in pairwise(rows) if a["value"] == 3]
    assert 0 < found["instructions"] < sum(spans)


def test_the_api_says_the_same(both: tuple[Recording, Recording]) -> None:
    with library.open(both[0].path) as ours, library.open(both[1].path) as theirs:
        found = ours.compare_process(theirs, "init#1")
    told = compare(both, process="init#1")
    assert found.common == told["instructions"] > 0
    assert [program.position for program in found.programs] == told["begun"]


def test_names_that_are_none_or_many(both: tuple[Recording, Recording]) -> None:
    paths = [run.path for run in both]
    many = retrograde("diff", *paths, "--process", "init")
    assert_error(many, 2, "has 3 processes init, begun at", "--process 'init#1' is the first")
    assert_error(retrograde("diff", *paths, "--process", "sh"), 2, "Its processes are: init.")
