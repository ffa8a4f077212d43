"""Stops one after the other, which searches that are remembered answer, against a machine.

The oracle is a second timeline that seeks to each place and never searches.
"""

from __future__ import annotations

import random

import pytest

from retrograde.errors import QemuRefused
from retrograde.machine.probe.request import Check
from retrograde.timeline.timeline import Timeline
from retrograde.wire.agent import BadExpression, Expression, Op
from tests.conftest import qemu_that_replays

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

STOPS = 6
BYTES = 48
EXPRESSIONS = 12


async def seen(timeline):
    """Return what is at hand, and memory where a debugger looks."""
    glimpse = await timeline.glimpse()
    pc = await timeline.pc()
    return timeline.position, glimpse, pc, await read(timeline, pc)


async def read(timeline, address):
    try:
        return await timeline.read(address, BYTES)
    except QemuRefused:
        return None


async def there(timeline, position):
    await timeline.seek(position)
    return await timeline.packet()


def agree(glimpse, packet):
    """Whether all digits that are known are those of the packet."""
    known = [(one, other) for one, other in zip(glimpse, packet, strict=True) if one != ord("x")]
    return known and all(one == other for one, other in known)


async def walk(timeline, dice, *, forward):
    """Run from stop to stop, with steps between them as gdb makes them."""
    found = []
    for _ in range(STOPS):
        hit = await (timeline.run() if forward else timeline.run_back())
        if hit is None:
            break
        found.append(await seen(timeline))
        if dice.random() < 0.7:
            await (timeline.step() if forward else timeline.step_back())
            found.append(await seen(timeline))
    return found


@pytest.mark.parametrize("target", ["x86_64", "aarch64"])
async def test_each_is_what_the_machine_is_there(recorded, target):
    qemu_that_replays(target)
    recording, dice = recorded("tiny", target), random.Random(target)
    async with await Timeline.open(recording) as timeline, await Timeline.open(recording) as oracle:
        middle = timeline.end * 2 // 3
        trace = await timeline.trace(middle, middle + 300)
        pcs = sorted({int(pc) for pc in trace.pcs})
        for pc in dice.sample(pcs, min(3, len(pcs))):
            timeline.add_breakpoint(pc)
        await timeline.seek(middle)
        found = await walk(timeline, dice, forward=True)
        found += await walk(timeline, dice, forward=False)
        timeline.add_watchpoint(int(trace.accesses["vaddr"][0]), 8, "rw")
        found += await walk(timeline, dice, forward=False)
        assert len(found) > STOPS
        assert any(b"x" in glimpse for _, glimpse, _, _ in found), "none was remembered"
        for position, glimpse, pc, memory in found:
            assert agree(glimpse, await there(oracle, position)), position
            assert pc == await oracle.pc()
            assert memory == await read(oracle, pc)


def word(value):
    return bytes([Op.CONST64]) + (value & (1 << 64) - 1).to_bytes(8, "big")


def operand(dice, numbers, stack):
    """A register or constant, or memory that a register points near to, perhaps twice."""
    code = bytes([Op.REG, *dice.choice(numbers).to_bytes(2, "big")])
    if dice.random() < 0.3:
        return word(dice.choice([0, 1, -1, 7, dice.getrandbits(64), 1 << 63]))
    if dice.random() < 0.6:
        code = bytes([Op.REG, *stack.to_bytes(2, "big")]) + word(dice.randrange(-64, 64, 8))
        code += bytes([Op.ADD])
        for _ in range(dice.randrange(1, 3)):
            code += bytes([dice.choice([Op.REF8, Op.REF16, Op.REF32, Op.REF64])])
    if dice.random() < 0.5:
        code += bytes([dice.choice([Op.EXT, Op.ZERO_EXT]), dice.choice([1, 8, 31, 32, 64])])
    return code


UNARY = (Op.LOG_NOT, Op.BIT_NOT)
BINARY = (
    *(Op.ADD, Op.SUB, Op.MUL, Op.DIV_SIGNED, Op.DIV_UNSIGNED, Op.REM_SIGNED, Op.REM_UNSIGNED),
    *(Op.LSH, Op.RSH_SIGNED, Op.RSH_UNSIGNED, Op.BIT_AND, Op.BIT_OR, Op.BIT_XOR),
    *(Op.EQUAL, Op.LESS_SIGNED, Op.LESS_UNSIGNED),
)


def expression(dice, numbers, stack):
    """Code that leaves one bit, which most words could set or not."""
    code = operand(dice, numbers, stack)
    for _ in range(dice.randrange(1, 4)):
        code += operand(dice, numbers, stack) + bytes([dice.choice(BINARY)])
        if dice.random() < 0.2:
            code += bytes([Op.DUP, Op.SWAP, Op.BIT_XOR, dice.choice(UNARY)])
    past = len(code) + 6  # by way of a jump, as && and || are
    code += bytes([Op.DUP, Op.IF_GOTO, *past.to_bytes(2, "big"), Op.LOG_NOT, Op.LOG_NOT])
    return Expression(code + word(1) + bytes([Op.BIT_AND, Op.END]))


@pytest.mark.parametrize("target", ["x86_64", "ppc64"])
async def test_the_probe_evaluates_what_gdb_sends(recorded, target):
    """On each random expression the probe says what bytecode says that is run here."""
    qemu_that_replays(target)
    dice = random.Random(target)
    async with await Timeline.open(recorded("tiny", target)) as timeline:
        start = timeline.end * 2 // 3
        stop = start + 400
        trace = await timeline.trace(start, stop)
        pcs = trace.pcs.tolist()
        pc = max(set(pcs), key=pcs.count)
        places = [start + at for at, one in enumerate(pcs) if one == pc][:6]
        view = timeline.view
        general = [one for one in view.layout.registers if one.bits <= 64][:8]
        numbers = [one.number for one in general]
        stack = view.layout.register(view.isa.sp)
        names = {one.number: one.name for one in (*general, stack)}
        codes = [expression(dice, numbers, stack.number) for _ in range(EXPRESSIONS)]
        wanted = [[] for _ in codes]
        for position in places:
            await timeline.seek(position)
            for code, holding in zip(codes, wanted, strict=True):
                if await holds(timeline, code, names):
                    holding.append(position)
        for code, holding in zip(codes, wanted, strict=True):
            number = timeline.add_breakpoint(pc, checks=(Check(code, tuple(names.items())),))
            found = await timeline.hits(places[0], places[-1] + 1)
            timeline.remove(number)
            assert [hit.position for hit in found] == holding, code.code.hex()
        assert any(wanted)
        assert not all(wanted)


async def holds(timeline, code, names):
    """Whether a condition holds at the cursor; one that cannot be evaluated does."""
    registers = await timeline.registers()
    order = view_order(timeline, registers)

    async def memory(address, size):
        return int.from_bytes(await timeline.read(address, size), order)

    try:
        return bool(await code.evaluate(lambda number: registers[names[number]], memory))
    except (BadExpression, QemuRefused):
        return True


def view_order(timeline, registers):
    isa = timeline.view.isa
    return "little" if isa.order_bit is not None and registers["msr"] & 1 else isa.byte_order
