"""How a cursor moves for any front end, over the model machine and its execution."""

from __future__ import annotations

import pytest

from retrograde.machine.probe.request import Breakpoint, Watch
from retrograde.testing.cpu import PC, Instruction, Program, execute
from retrograde.testing.model import model_timeline
from retrograde.timeline.moving import Mover, Why
from retrograde.timeline.search import Stops
from tests.timeline.programs import hits_of

CODE = 0x10_0000
LOOP = [
    Instruction("add", 0, 0, 3),
    Instruction("store", 0, 1, 8),
    Instruction("jump", number=-2),
]
LONG = Program(LOOP, 6000, frozenset({1990, 2001}))


class Client:
    """Stops at these; a breakpoint counts only at positions that `wanted` takes."""

    def __init__(self, timeline, *stops, wanted=lambda _position: True):
        self._stops = Stops(
            tuple(one for one in stops if isinstance(one, Breakpoint)),
            tuple(one for one in stops if isinstance(one, Watch)),
        )
        self._timeline, self._wanted = timeline, wanted
        self.asked = 0

    def stops(self):
        return self._stops

    async def holds(self, pc, *, tried):
        self.asked += 1
        if all(pc != one.pc for one in self._stops.breakpoints):
            return False
        return self._wanted(self._timeline.position)


def breaks(execution, pc):
    return [at for at, access in hits_of(execution, [Breakpoint(pc)]) if not access]


@pytest.mark.parametrize("short", [False, True])
async def test_accesses_stop_both_ways_where_the_client_wants(tmp_path, short):
    execution = execute(LONG)
    watch = Watch(8, 8, "w")
    stores = sorted({at for at, _ in hits_of(execution, [watch])})
    async with model_timeline(LONG, tmp_path, checkpoints=[500, 3000]) as timeline:
        mover = Mover(timeline, Client(timeline, watch), short=short)
        for at in stores[:3]:
            stopped = await mover.run()
            assert (stopped.why, stopped.hit.position) == (Why.ACCESS, at)
            assert timeline.position == at + (not short)
            await timeline.seek(at + 1)
        for at in stores[2::-1]:
            stopped = await mover.run_back()
            assert (stopped.why, stopped.hit.position) == (Why.ACCESS, at)
            assert timeline.position == at + short
            await timeline.seek(at)
        await timeline.seek(stores[5])
        stopped = await mover.step()
        assert (stopped.why, stopped.hit.position) == (Why.ACCESS, stores[5])
        assert timeline.position == stores[5] + (not short)
        await timeline.seek(stores[5] + 1)
        stopped = await mover.step_back()
        assert (stopped.why, timeline.position) == (Why.ACCESS, stores[5] + short)


@pytest.mark.parametrize("far", [False, True])
async def test_a_breakpoint_counts_where_the_client_says_so(tmp_path, far):
    """Near ones are walked to; those that are refused 1900 times are sifted."""
    execution = execute(LONG)
    reached = breaks(execution, CODE + 4)
    chosen = reached[1900] if far else reached[5]
    async with model_timeline(LONG, tmp_path, checkpoints=[500, 3000]) as timeline:
        client = Client(timeline, Breakpoint(CODE + 4), wanted=lambda one: one == chosen)
        mover = Mover(timeline, client)
        stopped = await mover.run()
        assert (stopped.why, timeline.position) == (Why.BREAK, chosen)
        assert stopped.hit.pc == execution.registers[execution.last[chosen]][PC]
        assert (await mover.run()).why is Why.END
        assert timeline.position == timeline.end
        assert (await mover.run_back()).why is Why.BREAK
        assert timeline.position == chosen
        assert (await mover.run_back()).why is Why.START
        assert timeline.position == 0


async def test_steps_go_on_while_the_client_is_inside(tmp_path):
    async with model_timeline(LONG, tmp_path) as timeline:
        client = Client(timeline, Breakpoint(CODE + 8))

        async def inside():
            return timeline.position < 700

        mover = Mover(timeline, Client(timeline))
        assert (await mover.step_while(inside)).why is Why.STEPPED
        assert timeline.position == 700
        await timeline.seek(0)
        stopped = await Mover(timeline, client).step_while(inside)
        assert (stopped.why, stopped.hit.pc) == (Why.BREAK, CODE + 8)
        await timeline.seek(timeline.end)
        assert (await mover.step()).why is Why.END
        await timeline.seek(0)
        assert (await mover.step_back()).why is Why.START
