"""Out of functions, found by the stack pointer."""

from __future__ import annotations

import pytest

from retrograde.errors import UsageError
from retrograde.testing.cpu import Instruction, Program
from retrograde.testing.model import model_timeline
from retrograde.timeline import links
from retrograde.timeline.timeline import Timeline
from tests.conftest import qemu_that_replays


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


LINKING = ("aarch64", "riscv64", "riscv32", "ppc64")


@pytest.mark.qemu
@pytest.mark.parametrize("target", LINKING)
async def test_out_of_a_handler_on_machines_with_a_link_register(recorded, target):
    qemu_that_replays(target)
    async with await Timeline.open(recorded("tiny", target)) as timeline:
        for taken in timeline.facts.interrupts[5:7].tolist():
            await timeline.seek(taken - 1)
            interrupted = await timeline.registers()
            await timeline.seek(taken)
            await timeline.step(3)
            left = await timeline.finish()
            assert left == timeline.position > taken + 3
            resumed = await timeline.registers()
            assert resumed[timeline.view.isa.sp] == interrupted[timeline.view.isa.sp]
            await timeline.step_back()
            assert await timeline.finish_back() == timeline.position == taken - 1


@pytest.mark.qemu
@pytest.mark.parametrize("target", LINKING)
async def test_out_of_a_function_and_back_on_machines_with_a_link_register(recorded, target):
    """Where the console gets a byte the guest is in a function that calls none."""
    qemu_that_replays(target)
    async with await Timeline.open(recorded("tiny", target)) as timeline:
        inside = timeline.resolve("console:-START")
        await timeline.seek(inside)
        left = await timeline.finish()
        assert left == timeline.position > inside
        returned_to = await timeline.pc()
        await timeline.step_back()
        call = await timeline.finish_back()
        assert call == timeline.position < inside
        assert await timeline.pc() + 4 == returned_to
        await timeline.step()
        assert await timeline.finish() == left


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


async def test_other_machines_are_refused(tmp_path, monkeypatch):
    monkeypatch.delitem(links._ROWS, "riscv64")
    async with model_timeline(Program([Instruction("nop")], 10), tmp_path) as timeline:
        with pytest.raises(UsageError, match="riscv64"):
            await timeline.finish()
