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


@pytest.mark.qemu
async def test_out_of_a_handler_in_which_other_tasks_run_and_back(recorded):
    """The handlers of `int 0x30` switch to the next thread's stack, 4096 bytes from this one."""
    async with await Timeline.open(recorded("stacks")) as timeline:
        late = timeline.facts.deliveries[timeline.facts.deliveries > timeline.end * 19 // 20]
        switches = 0
        for taken in late[:12].tolist():
            await timeline.seek(taken - 1)
            before, pc = await timeline.registers(), await timeline.pc()
            if await timeline.read(pc, 2) != b"\xcd\x30":
                continue
            await timeline.seek(taken)
            left = await timeline.finish()
            if left is None:
                continue  # the others run for long
            after = await timeline.registers()
            assert (after["rsp"], await timeline.pc()) == (before["rsp"], pc + 2)
            switches += left - taken > 100
            await timeline.step_back()
            assert await timeline.finish_back() == taken - 1
        assert switches > 2


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


SWITCHES = {
    "aarch64": {"mov sp, x9": 0x9100013F, "add sp, x2, #0x10": 0x9100405F},
    "riscv64": {"ld sp, 0x70(a1)": 0x0705B103, "mv sp, a0": 0x00050113, "c.mv sp, a0": 0x812A},
    "riscv32": {"lw sp, 0(t0)": 0x0002A103},
    "ppc64": {"ld r1, 0x10(r4)": 0xE8240010, "mr r1, r9": 0x7D214B78},
}
STAYS = {
    "aarch64": {"add sp, sp, #0x20": 0x910083FF, "mov sp, x29": 0x910003BF, "ret": 0xD65F03C0},
    "riscv64": {"ld sp, 8(sp)": 0x00813103, "mv sp, s0": 0x00040113, "c.jr a0": 0x8502},
    "riscv32": {"lw sp, 8(sp)": 0x00812103},
    "ppc64": {"ld r1, 0(r1)": 0xE8210000, "mr r1, r31": 0x7FE1FB78},
}


@pytest.mark.parametrize("target", LINKING)
def test_what_switches_stacks_is_known(target):
    for words, switches in ((SWITCHES, True), (STAYS, False)):
        for text, word in words[target].items():
            rows = links._ROWS[target][text.startswith("c.")]
            kind = links._classified(word, rows)
            assert (kind is links._Kind.SWITCH) == switches, text


async def test_other_machines_are_refused(tmp_path, monkeypatch):
    monkeypatch.delitem(links._ROWS, "riscv64")
    async with model_timeline(Program([Instruction("nop")], 10), tmp_path) as timeline:
        with pytest.raises(UsageError, match="riscv64"):
            await timeline.finish()
