"""What every machine's timeline must do; the model machine and QEMU pass the same suite.

A machine here is a timeline, a span of positions with an interrupt or exception in it,
and the registers at each of them as single steps show them.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

import pytest

from retrograde.errors import PositionError
from retrograde.guests import builtin_guest
from retrograde.testing.cpu import Instruction, Program, execute
from retrograde.testing.machine import packet_of
from retrograde.testing.model import model_timeline
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.timeline import Timeline
from retrograde.verify.oracle import Oracle

REACH = 60
"""Positions looked at on both sides of the interrupt or exception."""

LOOP = (
    Instruction("set", 1, number=64),
    Instruction("add", 0, 0, 3),
    Instruction("store", 0, 1, 8),
    Instruction("push", 0),
    Instruction("call", number=4),
    Instruction("pop", 2),
    Instruction("xor", 3, 2),
    Instruction("jump", number=-6),
    Instruction("touch", 0, 1, 32),
    Instruction("trap"),
    Instruction("return"),
)

PATTERN = builtin_guest().pattern.address + 16

GUESTS = ("tiny", "pagefault", "exceptions")
MORE_GUESTS = ("syscall", "stacks")


@dataclass
class Machine:
    timeline: Timeline
    start: int
    end: int
    packets: dict[int, bytes]
    quiet: int
    """Address of memory that is written long before."""

    async def here(self):
        return self.timeline.position, await self.timeline.packet()

    def at(self, position):
        return position, self.packets[position]

    def pc(self, position):
        """Return where the instruction is: the span is in long mode."""
        view = self.timeline.view
        return view.isa.linear_pc(view.decode(self.packets[position]))


@contextlib.asynccontextmanager
async def model(folder):
    program = Program(LOOP, 4000, frozenset({1990, 2001}), {1995: (80, b"device")})
    execution = execute(program)
    async with model_timeline(program, folder, checkpoints=(500, 1980, 2010, 3000)) as timeline:
        span = range(2000 - REACH, 2000 + REACH + 1)
        packets = {at: packet_of(execution.registers[execution.last[at]]) for at in span}
        yield Machine(timeline, span[0], span[-1], packets, quiet=80)


@contextlib.asynccontextmanager
async def qemu_machine(recording, qemu, walked):
    if recording.path not in walked:
        walked[recording.path] = await walk(recording, qemu)
    packets = walked[recording.path]
    async with await Timeline.open(recording, qemu) as timeline:
        yield Machine(timeline, min(packets), max(packets), packets, quiet=PATTERN)


async def walk(recording, qemu):
    """Return the registers at each position around a delivery, by single steps."""
    facts = LogFacts.read(recording.log())
    middle = int(facts.deliveries[len(facts.deliveries) // 20])
    async with await Oracle.start(recording, qemu, facts) as oracle:
        steps = await oracle.walk(middle - REACH, middle + REACH, {}, digest=False)
    return {at: state.packet for at, state in steps.states.items()}


@pytest.fixture(scope="module")
def walked():
    """What single steps showed, by recording: walking there once is enough."""
    return {}


@pytest.fixture(
    params=[
        "model",
        *(pytest.param(name, marks=pytest.mark.qemu) for name in GUESTS),
        *(pytest.param(name, marks=(pytest.mark.qemu, pytest.mark.slow)) for name in MORE_GUESTS),
    ]
)
def machine(request, tmp_path):
    """A context manager that makes the machine, in the loop of the test."""
    if request.param == "model":
        return model(tmp_path)
    recorded, qemu = request.getfixturevalue("recorded"), request.getfixturevalue("qemu")
    return qemu_machine(recorded(request.param), qemu, request.getfixturevalue("walked"))


async def test_seeks_arrive_at_the_state_steps_show(machine):
    async with machine as it:
        middle = (it.start + it.end) // 2
        for position in (middle, it.end, it.start, middle - 1, middle + 1, middle, 0, middle):
            await it.timeline.seek(position)
            if position:
                assert await it.here() == it.at(position)


async def test_every_step_and_every_step_back(machine):
    async with machine as it:
        await it.timeline.seek(it.start)
        for position in range(it.start + 1, it.end + 1):
            await it.timeline.step()
            assert await it.here() == it.at(position)
        for position in range(it.end - 1, it.start - 1, -1):
            await it.timeline.step_back()
            assert await it.here() == it.at(position)
        await it.timeline.step(it.end - it.start)
        assert await it.here() == it.at(it.end)
        await it.timeline.step_back(it.end - it.start)
        assert await it.here() == it.at(it.start)


async def test_runs_stop_at_each_execution_of_an_instruction(machine):
    async with machine as it:
        if not it.timeline.can_search:
            pytest.skip("this QEMU cannot carry the probe")
        pcs = [it.pc(position) for position in range(it.start, it.end)]
        wanted = max(pcs, key=pcs.count)
        expected = [it.start + number for number, pc in enumerate(pcs) if pc == wanted]
        number = it.timeline.add_breakpoint(wanted)
        assert [hit.position for hit in await it.timeline.hits(it.start, it.end)] == expected
        await it.timeline.seek(it.start - 1)
        for position in expected:
            assert (await it.timeline.run()).position == position
            assert await it.here() == it.at(position)
        for position in expected[-2::-1]:
            assert (await it.timeline.run_back()).position == position
            assert await it.here() == it.at(position)
        it.timeline.remove(number)
        assert it.timeline.position == expected[0]
        assert await it.timeline.run_back() is None
        assert it.timeline.position == 0


async def test_the_old_value_before_a_write_and_the_new_one_after(machine):
    async with machine as it:
        if not it.timeline.can_search:
            pytest.skip("this QEMU cannot carry the probe")
        number = it.timeline.add_watchpoint(0, 1 << 64, "w")
        stores = await it.timeline.hits(it.start, it.end)
        it.timeline.remove(number)
        assert stores
        for store in stores[:: max(1, len(stores) // 6)]:
            it.timeline.add_watchpoint(store.address, store.size)
            await it.timeline.seek(store.position)
            hit = await it.timeline.run()
            assert (hit.position, it.timeline.position) == (store.position, store.position + 1)
            order = it.timeline.view.isa.byte_order
            hits = await it.timeline.hits(store.position, store.position + 1)
            data = await it.timeline.read(hits[-1].address, hits[-1].size)
            assert int.from_bytes(data, order) == hits[-1].value
            last = await it.timeline.last_store(store.address, store.size)
            assert last.position == store.position
            hit = await it.timeline.run_back()
            assert hit.position == it.timeline.position == store.position
            await it.timeline.seek(it.end)
            for number in list(it.timeline._stops._stops):
                it.timeline.remove(number)


async def test_memory_out_of_a_window_is_memory_of_a_machine(machine):
    async with machine as it:
        sp = it.timeline.view.isa.sp
        await it.timeline.seek(it.start)
        await it.timeline.step(it.end - it.start)
        for position in range(it.end, it.start, -7):
            await it.timeline.step_back(it.timeline.position - position)
            stack = (await it.timeline.registers())[sp]
            held = await it.timeline.read(stack, 8)
            # Written by nobody here: from the second time on its page is at hand.
            again = [await it.timeline.read(it.quiet + offset, 4) for offset in (0, 0, 1)]
            seat = it.timeline.history.pool.seats[0]
            await seat.go(position)
            gdb = await seat.gdb()
            assert await gdb.read_memory(stack, 8) == held
            read = await gdb.read_memory(it.quiet, 5)
            assert again == [read[:4], read[:4], read[1:]]


async def test_positions_end_where_the_recording_does(machine):
    async with machine as it:
        await it.timeline.seek(it.timeline.end)
        with pytest.raises(PositionError):
            await it.timeline.step()
        await it.timeline.step_back(5)
        await it.timeline.step(5)
        assert it.timeline.position == it.timeline.end
        await it.timeline.packet()
        await it.timeline.seek(0)
        with pytest.raises(PositionError):
            await it.timeline.step_back()


@pytest.mark.qemu
async def test_the_first_steps_of_a_fresh_process(recorded, qemu):
    """Nothing ran before them from which the probe could learn QEMU's layout."""
    recording = recorded("tiny")
    async with await Oracle.start(recording, qemu, LogFacts.read(recording.log())) as oracle:
        steps = await oracle.walk(0, REACH, {}, digest=False)
    async with await Timeline.open(recording, qemu) as timeline:
        for position in range(1, REACH):
            await timeline.step()
            assert await timeline.packet() == steps.states[position].packet
        await timeline.step_back(REACH - 2)
        assert await timeline.packet() == steps.states[1].packet


LEAVING = b"\x0f\x22\xc1\xea"
"""mov %ecx,%cr0 and a far jump: with it SeaBIOS leaves protected mode."""


@pytest.mark.qemu
async def test_a_pc_is_linear_between_the_modes_of_firmware(recorded, qemu):
    """In real mode CS keeps the base it had in protected mode until the far jump."""
    async with await Timeline.open(recorded("tiny"), qemu) as timeline:
        if not timeline.can_search:
            pytest.skip("this QEMU cannot carry the probe")
        await timeline.seek(timeline.end // 2)
        firmware = await timeline.read(0xF0000, 0x10000)
        for found in re.finditer(re.escape(LEAVING), firmware):
            timeline.add_breakpoint(0xF0000 + found.end() - 1)
        hit = await timeline.run_back()
        assert hit is not None, "SeaBIOS never left protected mode"
        assert await timeline.pc() == hit.pc
        await timeline.step()
        await timeline.step_back()
        assert await timeline.pc() == hit.pc
        registers = await timeline.registers()
        assert (registers["cs"] << 4) + registers["rip"] != hit.pc
