"""Several cursors on one history, at work at the same time: none sees anything of the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from retrograde.errors import QemuDied
from retrograde.machine.probe.request import Breakpoint
from retrograde.testing.cpu import Instruction, Program, execute
from retrograde.testing.model import model_history
from retrograde.timeline.history import History
from retrograde.timeline.pool import Pool
from retrograde.timeline.search import Stops
from retrograde.timeline.timeline import Timeline
from retrograde.verify.oracle import Oracle
from tests.timeline import programs as p
from tests.timeline.driving import KINDS, Driver, cancel_something
from tests.timeline.test_model import EXAMPLES


def drive_together(program, seed, stops, *, cursors, cancels=False, **options):
    """Have cursors with stops of their own do random operations side by side."""
    execution = execute(program)
    note(f"end {execution.end}, deliveries {execution.exceptions} {execution.interrupts}")

    async def visit(history, mine, dice):
        async with await Timeline.on(history) as timeline:
            driver = Driver(timeline, execution, dice, mine)
            driver.arm()
            for _ in range(dice.randint(1, 6)):
                if cancels:
                    await cancel_something(timeline, dice)
                await driver.do(dice.choice(KINDS))

    async def work():
        with tempfile.TemporaryDirectory() as folder:
            async with (
                model_history(program, Path(folder), seed=seed, **options) as history,
                asyncio.TaskGroup() as group,
            ):
                for number in range(cursors):
                    group.create_task(
                        visit(history, stops[number::cursors], random.Random(seed + number))
                    )

    try:
        asyncio.run(work())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def different(stops):
    """Return stops of which no two are breakpoints at one place."""
    return list(
        {one.pc if isinstance(one, Breakpoint) else repr(one): one for one in stops}.values()
    )


STOPS = st.lists(st.one_of(p.breakpoints, p.watches), max_size=5).map(different)


@EXAMPLES
@given(
    p.programs(),
    st.integers(0, 9999),
    STOPS,
    st.lists(st.integers(0, 400), max_size=6),
    st.integers(1, 3),
    st.integers(2, 4),
)
def test_cursors_do_not_see_each_other(program, seed, stops, checkpoints, seats, cursors):
    drive_together(program, seed, stops, checkpoints=checkpoints, seats=seats, cursors=cursors)


@EXAMPLES
@given(p.programs(), STOPS, st.integers(0, 9999), st.integers(1, 3))
def test_what_one_cancels_is_right_for_the_others(program, stops, seed, seats):
    options = {"checkpoints": [100, 200], "seats": seats}
    drive_together(program, seed, stops, cursors=3, cancels=True, **options)


@EXAMPLES
@given(p.programs(longest=120), STOPS, st.integers(0, 9999))
def test_a_machine_that_dies_is_replaced_for_all(program, stops, seed):
    with contextlib.suppress(QemuDied):  # three deaths in a row are told
        drive_together(program, seed, stops, checkpoints=[50], dies=0.002, cursors=2)


async def test_a_replayer_is_lent_in_turn_and_given_back_whatever_happens(tmp_path):
    program = Program([Instruction("nop")], 50)
    async with model_history(program, tmp_path, seats=2) as history:
        pool, (first, second) = history.pool, history.pool.seats
        order = []

        async def use(name, among=()):
            async with pool.borrow(among) as seat:
                order.append((name, seat))
                await asyncio.sleep(0)

        async with pool.borrow((first,)), pool.borrow():
            waiting = [
                asyncio.create_task(use("a", (second,))),
                asyncio.create_task(use("b", (first,))),
                asyncio.create_task(use("c")),
                asyncio.create_task(use("d", (first,))),
            ]
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == [("a", second), ("c", first), ("d", first)]
        async with pool.borrow((first,)), pool.borrow((second,)):
            pass


async def test_one_that_is_cancelled_as_it_is_lent_one_gives_it_back(tmp_path):
    program = Program([Instruction("nop")], 50)
    async with model_history(program, tmp_path, seats=1) as history:
        pool: Pool = history.pool

        async def hold():
            async with pool.borrow():
                await asyncio.Event().wait()

        async with pool.borrow():
            waiting = asyncio.create_task(hold())
            await asyncio.sleep(0)
        waiting.cancel()  # lent to it, but it has not been told yet
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5), pool.borrow():
            pass


async def test_a_cursor_that_leaves_lets_the_others_stay(tmp_path):
    program = Program([Instruction("add", 0, 0, 1), Instruction("jump", number=-1)], 1000)
    async with model_history(program, tmp_path) as history:
        stays = await Timeline.on(history, at=500)
        async with await Timeline.on(history, at=700) as leaves:
            await leaves.step_back()
        await stays.step_back()
        assert stays.position == 499
        assert await stays.registers() is not None
        left_open = await Timeline.on(history, at=900)
        await left_open.step_back()  # what it fills beside ends before the machines do
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.qemu
async def test_cursors_on_one_recording_see_what_single_steps_show(recorded, qemu, probe):
    """Four walk, read and search at once with two QEMUs, of which some are killed."""
    recording, reach, dice = recorded("tiny"), 40, random.Random(5)
    async with await History.open(recording, qemu) as history:
        facts = history.facts
        places = [int(at) for at in facts.deliveries[len(facts.deliveries) // 20 :: 997]][:4]
        truth = {}
        async with await Oracle.start(recording, qemu, facts) as oracle:
            for place in places:
                steps = await oracle.walk(place - reach, place + reach, {}, digest=False)
                truth |= {at: state.packet for at, state in steps.states.items()}
        view, stop = history.view, Stops()

        async def visit(place, seed):
            own = random.Random(seed)
            async with await Timeline.on(history, at=place) as timeline:
                pc = view.isa.linear_pc(view.decode(truth[place]))
                stop = Stops(breakpoints=(Breakpoint(pc),))
                for _ in range(12):
                    at = own.randrange(place - reach, place + reach)
                    await timeline.seek(at)
                    assert await timeline.packet() == truth[at]
                    back = min(own.randrange(1, 30), at - (place - reach))
                    await timeline.step_back(back)
                    assert await timeline.packet() == truth[at - back]
                    found = await timeline.all_hits(stop, place - reach, place + reach)
                    assert [hit.position for hit in found] == [
                        one
                        for one in range(place - reach, place + reach)
                        if view.isa.linear_pc(view.decode(truth[one])) == pc
                    ]

        async def kill():
            for _ in range(3):
                await asyncio.sleep(0.5)
                seat = dice.choice(history.pool.seats)
                if seat._replayer is not None:
                    os.kill(seat.pid, signal.SIGKILL)

        assert not stop
        await asyncio.gather(*(visit(one, n) for n, one in enumerate(places)), kill())
