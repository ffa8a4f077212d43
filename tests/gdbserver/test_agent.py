"""gdb's bytecode, and what of it the probe gets to check."""

import asyncio
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.gdbserver.agent import WORD, BadExpression, Expression, Op
from retrograde.gdbserver.pushdown import conditions_of

NAMES = {0: "rax", 3: "rbx"}
COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

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
    (condition,) = conditions_of(Expression(code), NAMES.get)
    assert (condition.operand, condition.comparison, condition.value) == (0x601040, "==", 500)
    assert condition.mask == 0xFFFFFFFF
    assert condition.size == 4


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
    conditions_of(Expression(code), NAMES.get)


def operands():
    """Yield code for a register or memory, perhaps cut, extended or masked."""
    source = st.one_of(
        st.sampled_from(list(NAMES)).map(lambda n: bytes([Op.REG, 0, n])),
        st.sampled_from([Op.REF8, Op.REF16, Op.REF32, Op.REF64]).map(
            lambda op: const(0x5000) + bytes([op])
        ),
    )
    change = st.one_of(
        st.just(b""),
        st.tuples(st.sampled_from([Op.EXT, Op.ZERO_EXT]), st.sampled_from([8, 16, 31, 32, 64])).map(
            bytes
        ),
        words.map(lambda mask: const(mask) + bytes([Op.BIT_AND])),
    )
    return st.tuples(source, change, change).map(b"".join)


def comparisons():
    op = st.sampled_from([Op.EQUAL, Op.LESS_SIGNED, Op.LESS_UNSIGNED])
    negations = st.sampled_from([b"", bytes([Op.LOG_NOT]), bytes([Op.LOG_NOT] * 2)])
    swap = st.sampled_from([b"", bytes([Op.SWAP])])
    return st.tuples(
        operands(), words.map(const), swap, op.map(lambda o: bytes([o])), negations
    ).map(b"".join)


def both(first, second):
    """`first && second`, compiled as gdb does (ax-gdb.c, BINOP_LOGICAL_AND)."""
    a = len(first)
    b = a + 6 + len(second)
    return b"".join(
        (
            first,
            bytes([Op.IF_GOTO]) + (a + 6).to_bytes(2, "big"),
            bytes([Op.GOTO]) + (b + 11).to_bytes(2, "big"),
            second,
            bytes([Op.IF_GOTO]) + (b + 6).to_bytes(2, "big"),
            bytes([Op.GOTO]) + (b + 11).to_bytes(2, "big"),
            bytes([Op.CONST8, 1, Op.GOTO]) + (b + 13).to_bytes(2, "big"),
            bytes([Op.CONST8, 0]),
        )
    )


expressions = st.one_of(
    comparisons(), operands(), st.tuples(comparisons(), comparisons()).map(lambda two: both(*two))
)


@given(expressions, words, words, words)
def test_the_probe_is_told_the_same(code, rax, rbx, word):
    expression = Expression(code + bytes([Op.END]))
    conditions = conditions_of(expression, NAMES.get)
    if conditions is None:
        return
    registers = {"rax": rax, "rbx": rbx}

    def holds(one):
        if isinstance(one.operand, str):
            value = registers[one.operand]
        else:
            value = word & ((1 << 8 * one.size) - 1)
        return COMPARISONS[one.comparison](value & one.mask, one.value)

    truth = run(expression.code, {0: rax, 3: rbx}, {0x5000: word})
    assert all(map(holds, conditions)) == bool(truth)


def test_what_gdb_users_write_reaches_the_probe():
    reg = bytes([Op.REG, 0, 0])
    five, minus = const(5), const(-5 & WORD)
    ext = bytes([Op.EXT, 32])
    for code in (
        reg + five + bytes([Op.EQUAL]),
        reg + five + bytes([Op.EQUAL, Op.LOG_NOT]),
        reg + ext + five + bytes([Op.SWAP, Op.LESS_SIGNED]),
        reg + ext + minus + bytes([Op.LESS_SIGNED]),
        reg + five + bytes([Op.LESS_UNSIGNED]),
        both(reg + five + bytes([Op.EQUAL]), reg + ext + minus + bytes([Op.EQUAL, Op.LOG_NOT])),
    ):
        assert conditions_of(Expression(code + bytes([Op.END])), NAMES.get) is not None


def test_stale_registers_and_alternatives_do_not():
    either = const(1) + bytes([Op.REG, 0, 0, Op.IF_GOTO, 0, 17, Op.REG, 0, 3, Op.END])
    assert conditions_of(Expression(either + bytes([Op.END])), NAMES.get) is None
    rip = bytes([Op.REG, 0, 16]) + const(1) + bytes([Op.EQUAL, Op.END])
    assert conditions_of(Expression(rip), {16: "rip"}.get) is None
    product = bytes([Op.REG, 0, 0]) + const(10) + bytes([Op.REM_UNSIGNED, Op.END])
    assert conditions_of(Expression(product), NAMES.get) is None
