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
        for taken in timeline.facts.interrupts[100:102].tolist():
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
    """Where the console gets a byte the guest is in putc."""
    async with await Timeline.open(recorded("tiny")) as timeline:
        inside = timeline.resolve("console:-DONE")
        await timeline.seek(inside)
        left = await timeline.finish()
        assert left == timeline.position > inside
        sp = (await timeline.registers())["rsp"]
        await timeline.step_back()
        assert await timeline.read(await timeline.pc(), 1) == b"\xc3"  # ret
        call = await timeline.finish_back()
        assert call == timeline.position < inside
        assert await timeline.read(await timeline.pc(), 1) == b"\xe8"  # call
        assert (await timeline.registers())["rsp"] == sp


async def test_other_machines_are_refused(tmp_path):
    async with model_timeline(Program([Instruction("nop")], 10), tmp_path) as timeline:
        with pytest.raises(UsageError, match="riscv64"):
            await timeline.finish()
