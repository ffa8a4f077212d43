"""Drives a cursor over the model machine, and compares it with the execution itself."""

from __future__ import annotations

import asyncio
import contextlib

from retrograde.errors import QemuRefused
from retrograde.machine.probe.request import Breakpoint, Watch
from retrograde.testing.cpu import PC, RAM_BYTES
from retrograde.testing.machine import packet_of
from tests.timeline import programs as p


class Driver:
    """Does one operation after the other, and compares each with the execution."""

    def __init__(self, timeline, execution, dice, stops):
        self.timeline, self.execution, self.dice, self.stops = timeline, execution, dice, stops
        self.numbers = []
        self.hits = p.hits_of(execution, stops) if timeline.can_search else []

    def arm(self):
        for stop in self.stops:
            if isinstance(stop, Breakpoint):
                self.numbers.append(self.timeline.add_breakpoint(stop.pc, stop.conditions))
            else:
                space = "physical" if stop.physical else "virtual"
                self.numbers.append(
                    self.timeline.add_watchpoint(stop.start, stop.length, stop.access, space)
                )

    async def do(self, kind):
        here, end = self.timeline.position, self.execution.end
        expected = here
        if kind == "seek":
            expected = self.dice.randint(0, end)
            await self.timeline.seek(expected)
        elif kind == "step":
            expected = self.dice.randint(here, end)
            await self.timeline.step(expected - here)
        elif kind == "step_back":
            expected = self.dice.randint(0, here)
            await self.timeline.step_back(here - expected)
        elif kind == "run":
            hit = await self.timeline.run()
            ahead = [one for one in self.hits if one > (here, False)]
            expected = ahead[0][0] + ahead[0][1] if ahead else end
            assert (hit and (hit.position, hit.is_access)) == (ahead[0] if ahead else None)
        elif kind == "run_back":
            hit = await self.timeline.run_back()
            behind = [one for one in self.hits if one[0] < here]
            expected = behind[-1][0] if behind else 0
            assert (hit and (hit.position, hit.is_access)) == (behind[-1] if behind else None)
        elif kind == "hits":
            start = self.dice.randint(0, end)
            stop = self.dice.randint(start, end)
            found = await self.timeline.hits(start, stop)
            inside = [one for one in self.hits if start <= one[0] < stop]
            assert sorted({(hit.position, hit.is_access) for hit in found}) == inside
            assert [hit.position for hit in found] == sorted(hit.position for hit in found)
        elif kind == "last_write":
            address, count = p.an_address(self.dice), self.dice.randint(1, 9)
            hit = await self.timeline.last_store(address, count)
            writes = p.hits_of(self.execution, [Watch(address, count, "w")])
            behind = [one[0] for one in writes if one[0] < here]
            assert (hit and hit.position) == (behind[-1] if behind else None)
        assert self.timeline.position == expected
        await self.compare()

    async def compare(self):
        position = self.timeline.position
        moment = self.execution.last[position]
        glimpse = await self.timeline.glimpse()
        truth = packet_of(self.execution.registers[moment])
        assert all(one in (ord("x"), other) for one, other in zip(glimpse, truth, strict=True))
        assert await self.timeline.pc() == self.execution.registers[moment][PC]
        assert await self.timeline.packet() == packet_of(self.execution.registers[moment])
        ram = self.execution.ram_at(moment)
        for space in ("virtual", "physical"):
            address, count = p.an_address(self.dice), self.dice.randint(0, 40)
            count = min(count, RAM_BYTES - address)
            assert await self.timeline.read(address, count, space) == ram[address : address + count]


KINDS = ("seek", "step", "step_back", "step_back", "run", "run_back", "hits", "last_write")


async def cancel_something(timeline, dice):
    target = dice.randint(0, timeline.end)
    operation = dice.choice(
        (
            lambda: timeline.seek(target),
            lambda: timeline.step_back(timeline.position // 2),
            lambda: timeline.step((timeline.end - timeline.position) // 2),
            *((timeline.run, timeline.run_back) if timeline.can_search else ()),
            lambda: timeline.read(0, 64),
            timeline.digest,
        )
    )
    task = asyncio.create_task(operation())
    for _ in range(dice.randint(0, 60)):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, QemuRefused):
        await task
