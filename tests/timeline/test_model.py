"""The timeline's algorithms over the model machine, against the execution itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from retrograde.errors import PositionError, QemuDied, QemuRefused
from retrograde.machine.probe.request import Breakpoint
from retrograde.testing.cpu import Instruction, Program, execute
from retrograde.testing.machine import ModelReplayer
from retrograde.testing.model import CYCLE, model_timeline
from retrograde.timeline.timeline import Timeline
from tests.timeline import programs as p
from tests.timeline.driving import KINDS, Driver, cancel_something

EXAMPLES = settings(
    deadline=None, max_examples=150, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)


def drive(program, data, stops, *, kinds=KINDS, cancels=False, **options):
    execution = execute(program)
    note(f"end {execution.end}, deliveries {execution.exceptions} {execution.interrupts}")

    async def work():
        with tempfile.TemporaryDirectory() as folder:
            async with model_timeline(program, Path(folder), **options) as timeline:
                dice = data.draw(st.randoms())
                driver = Driver(timeline, execution, dice, stops)
                if timeline.can_search:
                    driver.arm()
                for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=12)):
                    if cancels:
                        await cancel_something(timeline, dice)
                    await driver.do(kind)

    asyncio.run(work())


@EXAMPLES
@given(
    p.programs(),
    st.data(),
    st.lists(
        st.one_of(p.breakpoints, p.watches), max_size=4, unique_by=lambda stop: repr(stop)[:30]
    ),
    st.lists(st.integers(0, 400), max_size=6),
    st.integers(1, 3),
)
def test_any_operations_on_any_program(program, data, stops, checkpoints, seats):
    pcs = [stop.pc for stop in stops if isinstance(stop, Breakpoint)]
    stops = stops if len(set(pcs)) == len(pcs) else stops[:1]
    drive(program, data, stops, checkpoints=checkpoints, seats=seats)


@EXAMPLES
@given(p.programs(), st.data(), st.lists(st.integers(0, 400), max_size=6))
def test_without_a_probe_all_movements_are_right(program, data, checkpoints):
    kinds = ("seek", "step", "step_back")
    drive(program, data, [], kinds=kinds, checkpoints=checkpoints, with_probe=False)


@EXAMPLES
@given(p.programs(), st.data(), st.lists(p.watches, max_size=2), st.integers(0, 99))
def test_whatever_is_cancelled_the_next_answer_is_right(program, data, stops, seed):
    drive(program, data, stops, checkpoints=[100, 200], cancels=True, seed=seed)


@EXAMPLES
@given(p.programs(), st.data(), st.integers(0, 99))
def test_whatever_is_cancelled_while_stepping_the_next_answer_is_right(program, data, seed):
    kinds = ("seek", "step", "step_back")
    drive(program, data, [], kinds=kinds, cancels=True, seed=seed, with_probe=False)


@EXAMPLES
@given(p.programs(longest=120), st.data(), st.lists(p.watches, max_size=2), st.integers(0, 99))
def test_machines_that_die_now_and_then_are_replaced(program, data, stops, seed):
    with contextlib.suppress(QemuDied):  # three deaths in a row are told
        drive(program, data, stops, checkpoints=[50], dies=0.004, seed=seed)


@EXAMPLES
@given(p.programs(), st.data(), st.lists(p.watches, max_size=2), st.integers(1, 2))
def test_machines_that_keep_code_are_loaded_once(program, data, stops, seats):
    drive(program, data, stops, checkpoints=[100, 200], keeps_code=True, seats=seats)


@EXAMPLES
@given(p.programs(), st.data(), st.lists(p.watches, max_size=2), st.booleans(), st.integers(0, 99))
def test_no_state_is_saved_or_loaded_over_requests_in_flight(
    program, data, stops, keeps_code, seed
):
    checkpoints = [at for at in (100, 200) if at % CYCLE < CYCLE // 2]
    drive(
        program,
        data,
        stops,
        checkpoints=checkpoints,
        disks=True,
        keeps_code=keeps_code,
        cancels=True,
        seed=seed,
    )


def test_a_tight_loop_with_more_hits_than_the_probe_keeps(tmp_path):
    program = Program([Instruction("store", 0, 1), Instruction("jump", number=-1)], 3000)

    async def work():
        async with model_timeline(program, tmp_path, checkpoints=[1000]) as timeline:
            timeline.add_breakpoint(0x10_0000)
            assert len(await timeline.hits(0, 3000)) == 1500
            await timeline.seek(7)
            assert (await timeline.run()).position == 8
            await timeline.seek(2999)
            assert (await timeline.run_back()).position == 2998

    asyncio.run(work())


def test_the_first_of_too_many_hits_comes_late(tmp_path):
    code = [
        *[Instruction("nop")] * 2000,
        Instruction("store", 0, 1),
        Instruction("jump", number=-1),
    ]

    async def work():
        async with model_timeline(Program(code, 3000), tmp_path) as timeline:
            timeline.add_breakpoint(0x10_0000 + 4 * 2000)
            assert (await timeline.run()).position == 2000

    asyncio.run(work())


@pytest.mark.parametrize("error", [QemuDied, QemuRefused])
async def test_a_checkpoint_that_cannot_be_loaded_is_done_without(error, tmp_path, monkeypatch):
    program = Program([Instruction("nop")], 300)
    load, refused = ModelReplayer.load, []

    async def load_all_but_one(self, snapshot):
        if snapshot.position == 100:
            refused.append(snapshot)
            raise error("This state cannot be loaded.")
        await load(self, snapshot)

    monkeypatch.setattr(ModelReplayer, "load", load_all_but_one)
    async with model_timeline(program, tmp_path, checkpoints=[50, 100], seats=1) as timeline:
        for position in (250, 120, 220, 110):
            await timeline.seek(position)
            assert timeline.position == position
        assert [one.position for one in timeline.store.checkpoints] == [0, 50]
    assert len(refused) == (2 if error is QemuDied else 1)


def test_the_model_does_not_depend_on_anything(tmp_path):
    dice = random.Random(3)
    code = [Instruction("add", 0, 1, dice.randrange(9)) for _ in range(9)]
    program = Program(code, 100, frozenset({7, 50}))
    assert execute(program) == execute(program)
    assert execute(program).interrupts == [7, 50]


async def test_positions_outside_are_refused(tmp_path):
    async with model_timeline(Program([Instruction("nop")], 10), tmp_path) as timeline:
        for wrong in (timeline.seek(11), timeline.step(11), timeline.step_back(1)):
            with pytest.raises(PositionError):
                await wrong


@pytest.mark.parametrize("probe", [True, False])
async def test_with_nothing_to_stop_at_runs_go_to_the_ends(tmp_path, probe):
    program = Program([Instruction("nop")], 50)
    async with model_timeline(program, tmp_path, with_probe=probe) as timeline:
        await timeline.seek(20)
        assert await timeline.run() is None
        assert timeline.position == timeline.end
        await timeline.seek(20)
        assert await timeline.run_back() is None
        assert timeline.position == 0
        assert await timeline.hits(0, 50) == []


async def test_what_is_prefetched_ends_where_opening_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on with a machine, and a probe, that were given back."""

    async def seek(self: Timeline, _position: int) -> None:
        self._windows._prefetch.want(0, 100)
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    monkeypatch.setattr(Timeline, "seek", seek)
    with pytest.raises(asyncio.CancelledError):
        async with model_timeline(Program([Instruction("nop")], 3000), tmp_path):
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}
