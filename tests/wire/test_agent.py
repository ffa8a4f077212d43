"""gdb's bytecode."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.wire.agent import WORD, BadExpression, Expression, Op

words = st.one_of(
    st.sampled_from([0, 1, 5, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, WORD, 1 << 63]),
    st.integers(0, WORD),
)


def const(value):
    return bytes([Op.CONST64]) + value.to_bytes(8, "big")


def run(code, registers=None, memory=None):
    async def read(address, size):
        return memory[address] & ((1 << 8 * size) - 1)

    return asyncio.run(Expression(code).evaluate((registers or {}).__getitem__, read))


def binary(op, first, second):
    return run(const(first & WORD) + const(second & WORD) + bytes([op, Op.END]))


@given(words, words)
def test_arithmetic_is_that_of_64_bit_words(a, b):
    assert binary(Op.ADD, a, b) == (a + b) & WORD
    assert binary(Op.SUB, a, b) == (a - b) & WORD
    assert binary(Op.MUL, a, b) == a * b & WORD
    assert binary(Op.LESS_UNSIGNED, a, b) == (a < b)
    assert binary(Op.BIT_XOR, a, b) == a ^ b


def test_signed_division_truncates():
    assert binary(Op.DIV_SIGNED, -7, 2) == -3 & WORD
    assert binary(Op.REM_SIGNED, -7, 2) == -1 & WORD
    assert binary(Op.DIV_UNSIGNED, -7, 2) == (WORD - 6) // 2
    assert binary(Op.RSH_SIGNED, -8, 1) == -4 & WORD
    assert binary(Op.RSH_UNSIGNED, 1, 1 << 40) == 0
    assert binary(Op.LSH, 1, 1 << 40) == 0


def test_stack_operations():
    three = const(1) + const(2) + const(3)
    assert run(three + bytes([Op.ROT, Op.END])) == 2
    assert run(three + bytes([Op.PICK, 2, Op.END])) == 1
    assert run(three + bytes([Op.SWAP, Op.END])) == 2
    assert run(three + bytes([Op.POP, Op.DUP, Op.SUB, Op.END])) == 0


def test_a_condition_as_gdb_sends_it():
    # `counter == 500` with an int in memory: const32, ref32, ext 32, const16, equal, end
    code = bytes.fromhex("2400601040 19 1620 2301f4 13 27")
    assert run(code, memory={0x601040: 500}) == 1
    assert run(code, memory={0x601040: 501}) == 0


@pytest.mark.parametrize(
    "code",
    [
        b"\x24\x00",
        b"\x30\x00\x00",
        bytes([Op.END]),
        bytes([Op.ADD, Op.END]),
        bytes([Op.GOTO, 0, 0]),
        bytes([Op.GOTO, 0, 9, Op.END]),
        const(1) + const(0) + bytes([Op.DIV_SIGNED, Op.END]),
        const(1) + bytes([Op.EXT, 0, Op.END]),
        const(1) + bytes([Op.DUP, Op.GOTO, 0, 9, Op.END]),
    ],
)
def test_bad_code_is_refused(code):
    with pytest.raises(BadExpression):
        run(code)


@given(st.binary(max_size=60))
def test_any_bytes_end_or_are_refused(code):
    async def read(address, size):
        return address & 0xFF

    try:
        value = asyncio.run(Expression(code).evaluate(lambda number: number, read))
    except BadExpression:
        return
    assert 0 <= value <= WORD


def test_registers_get_other_numbers():
    code = bytes([Op.REG, 0, 3, Op.REG, 1, 0, Op.CONST16, 0, 3, Op.END])
    expression = Expression(code)
    assert expression.registers == {3, 256}
    assert expression.renumbered({3: 0, 256: 7}.__getitem__) == bytes(
        [Op.REG, 0, 0, Op.REG, 0, 7, Op.CONST16, 0, 3, Op.END]
    )
