"""Out of functions, found by the stack pointer."""

from __future__ import annotations

import pytest

from retrograde.errors import UsageError
from retrograde.testing.cpu import Instruction, Program
from retrograde.testing.model import model_timeline
from retrograde.timeline.timeline import Timeline


@pytest.mark.qemu
async def test_out_of_a_handler_and_back_to_what_it_interrupted(recorded):
    async with await Timeline.open(recorded("nested")) as timeline:
        for taken in timeline.facts.interrupts[100:104].tolist():
            await timeline.seek(taken)
            inside = (await timeline.registers())["rsp"]
            left = await timeline.finish()
            assert left == timeline.position > taken
            assert (await timeline.registers())["rsp"] > inside
            await timeline.step_back()
            assert await timeline.read(await timeline.pc(), 2) == b"\x48\xcf"  # iretq
            assert await timeline.finish_back() == timeline.position == taken - 1


@pytest.mark.qemu
async def test_out_of_a_function_and_back_to_its_call(recorded):
    async with await Timeline.open(recorded("tiny"), at=1000) as timeline:
        calls = 0
        while calls < 4:
            sp = (await timeline.registers())["rsp"]
            call, code = timeline.position, await timeline.read(await timeline.pc(), 1)
            await timeline.step()
            if code != b"\xe8" or (await timeline.registers())["rsp"] != sp - 8:
                continue
            calls += 1
            left = await timeline.finish()
            assert left == timeline.position > call
            assert (await timeline.registers())["rsp"] == sp
            await timeline.step_back()
            assert await timeline.read(await timeline.pc(), 1) == b"\xc3"  # ret
            assert await timeline.finish_back() == timeline.position == call
            await timeline.seek(left)


async def test_other_machines_are_refused(tmp_path):
    async with model_timeline(Program([Instruction("nop")], 10), tmp_path) as timeline:
        with pytest.raises(UsageError, match="riscv64"):
            await timeline.finish()
