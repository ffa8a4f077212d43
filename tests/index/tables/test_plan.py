"""Intervals and runs: complete, without overlap, and replayable."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from retrograde.index.tables import plan

END = 1_000


def stretches(positions: list[int]) -> list[plan.Stretch]:
    return plan.stretches([(at, 0.5) for at in positions], END, lambda at: at)


def test_intervals_lie_between_checkpoints() -> None:
    cut = stretches([0, 300, 700])
    assert [one.intervals for one in cut] == [((0, 300),), ((300, 700),), ((700, 1000),)]
    assert [one.seconds for one in cut] == [0.5, 0.5, 0.0]


def test_no_checkpoints() -> None:
    assert [one.intervals for one in stretches([])] == [((0, 1000),)]


def test_what_is_long_is_cut_where_the_machine_has_one_state(monkeypatch: object) -> None:
    longest = plan.LONGEST
    cut = plan.stretches([(0, 0.0)], 3 * longest, lambda at: at + 7)
    assert cut[0].intervals == (
        (0, longest + 7),
        (longest + 7, 2 * longest + 7),
        (2 * longest + 7, 3 * longest),
    )


def test_runs_begin_where_a_replay_can() -> None:
    cut = stretches([0, 200, 400, 600, 800])
    everything = [interval for one in cut for interval in one.intervals]
    assert plan.runs(cut, everything, {0, 200, 400, 600, 800}, 1) == [everything]
    assert plan.runs(cut, [(600, 800)], {0, 200, 600}, 1) == [[(600, 800)]]
    assert plan.runs(cut, [(600, 800)], {0, 200}, 1) == [[(200, 400), (400, 600), (600, 800)]]
    assert plan.runs(cut, [], {0, 200}, 1) == []


def test_several_workers_get_several_runs() -> None:
    cut = stretches(list(range(0, END, 10)))
    everything = [interval for one in cut for interval in one.intervals]
    runs = plan.runs(cut, everything, {first for first, _ in everything}, 2)
    assert len(runs) == 2 * plan.SHARES
    assert [interval for run in runs for interval in run] == everything


def test_other_checkpoints_are_another_plan() -> None:
    assert plan.identity(stretches([0, 300])) == plan.identity(stretches([0, 300]))
    assert plan.identity(stretches([0, 300])) != plan.identity(stretches([0, 301]))


@given(st.sets(st.integers(0, END + 50)), st.data())
def test_all_missing_is_in_one_run_each(positions: set[int], data: st.DataObject) -> None:
    cut = stretches(sorted(positions))
    everything = [interval for one in cut for interval in one.intervals]
    assert everything[0][0] == 0
    assert everything[-1][1] == END
    assert all(one[1] == other[0] for one, other in pairwise(everything))
    some = st.sampled_from(everything)
    missing = data.draw(st.sets(some))
    starts = data.draw(st.sets(st.sampled_from([first for first, _ in everything])))
    runs = plan.runs(cut, missing, starts, data.draw(st.integers(1, 3)))
    given_out = [interval for run in runs for interval in run]
    assert missing <= set(given_out)
    assert all(run[0][0] in {0, *starts} for run in runs)
    assert all(one[1] == other[0] for run in runs for one, other in pairwise(run))
