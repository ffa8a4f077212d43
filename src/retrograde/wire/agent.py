"""gdb's agent expressions: the bytecode in which breakpoint conditions arrive.

Semantics: GDB manual, appendix "The GDB Agent Expression Mechanism". A stack of 64-bit
words; what an instruction yields on words wider than its operand is cut to 64 bits. Of
the instructions those that trace, print, use floating point or trace variables are not
known: gdb never puts them in a condition.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

WORD: Final = (1 << 64) - 1
MAX_OPERATIONS: Final = 10_000
"""A condition that takes more is stuck: gdb's have no loops."""
MAX_STACK: Final = 256

ReadRegister = Callable[[int], int]
"""Value of the register of a number in the target description."""
ReadMemory = Callable[[int, int], Awaitable[int]]
"""Value of `size` bytes (second) at an address (first), in the guest's byte order."""


class BadExpression(ValueError):
    """Bytecode that is cut off, unknown, or does what no expression may."""


class Op(enum.IntEnum):
    """The instructions of conditions."""

    ADD = 0x02
    SUB = 0x03
    MUL = 0x04
    DIV_SIGNED = 0x05
    DIV_UNSIGNED = 0x06
    REM_SIGNED = 0x07
    REM_UNSIGNED = 0x08
    LSH = 0x09
    RSH_SIGNED = 0x0A
    RSH_UNSIGNED = 0x0B
    LOG_NOT = 0x0E
    BIT_AND = 0x0F
    BIT_OR = 0x10
    BIT_XOR = 0x11
    BIT_NOT = 0x12
    EQUAL = 0x13
    LESS_SIGNED = 0x14
    LESS_UNSIGNED = 0x15
    EXT = 0x16
    REF8 = 0x17
    REF16 = 0x18
    REF32 = 0x19
    REF64 = 0x1A
    IF_GOTO = 0x20
    GOTO = 0x21
    CONST8 = 0x22
    CONST16 = 0x23
    CONST32 = 0x24
    CONST64 = 0x25
    REG = 0x26
    END = 0x27
    DUP = 0x28
    POP = 0x29
    ZERO_EXT = 0x2A
    SWAP = 0x2B
    PICK = 0x32
    ROT = 0x33


REFERENCES: Final = {Op.REF8: 1, Op.REF16: 2, Op.REF32: 4, Op.REF64: 8}
CONSTANTS: Final = frozenset((Op.CONST8, Op.CONST16, Op.CONST32, Op.CONST64))
_OPERAND_BYTES: Final = {
    **dict.fromkeys((Op.EXT, Op.ZERO_EXT, Op.CONST8, Op.PICK), 1),
    **dict.fromkeys((Op.IF_GOTO, Op.GOTO, Op.CONST16, Op.REG), 2),
    Op.CONST32: 4,
    Op.CONST64: 8,
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; `following` is the offset of the next one."""

    op: Op
    operand: int
    following: int


class Expression:
    """Checked bytecode. Raises BadExpression when made of anything else."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self._at = dict(_decoded(code))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.code == self.code

    def __hash__(self) -> int:
        return hash(self.code)

    def instruction(self, offset: int) -> Instruction:
        """Return the instruction at `offset`, where one must begin."""
        try:
            return self._at[offset]
        except KeyError:
            raise BadExpression(f"no instruction begins at offset {offset}") from None

    @property
    def registers(self) -> frozenset[int]:
        """Numbers of the registers it may read."""
        return frozenset(one.operand for one in self._at.values() if one.op is Op.REG)

    def renumbered(self, number: Callable[[int], int]) -> bytes:
        """Return the code with each register's number replaced."""
        code = bytearray(self.code)
        for offset, one in self._at.items():
            if one.op is Op.REG:
                code[offset + 1 : offset + 3] = number(one.operand).to_bytes(2, "big")
        return bytes(code)

    async def evaluate(self, register: ReadRegister, memory: ReadMemory) -> int:
        """Return the value on top of the stack at the end, unsigned.

        What `register` and `memory` raise goes through.
        """
        stack: list[int] = []
        offset = 0
        for _ in range(MAX_OPERATIONS):
            step = self.instruction(offset)
            offset = step.following
            if step.op is Op.END:
                return _pop(stack)
            if step.op is Op.GOTO or (step.op is Op.IF_GOTO and _pop(stack)):
                offset = step.operand
            elif step.op is Op.REG:
                stack.append(register(step.operand) & WORD)
            elif step.op in REFERENCES:
                stack.append(await memory(_pop(stack), REFERENCES[step.op]))
            elif step.op is not Op.IF_GOTO:
                compute(stack, step)
            if len(stack) > MAX_STACK:
                raise BadExpression("the stack overflows")
        raise BadExpression("it does not end")


def compute(stack: list[int], step: Instruction) -> None:
    """Do an instruction that needs nothing but the stack of words."""
    if step.op in CONSTANTS:
        stack.append(step.operand)
    elif step.op in _BINARY:
        second, first = _pop(stack), _pop(stack)
        stack.append(_BINARY[step.op](first, second) & WORD)
    elif step.op is Op.EXT:
        stack.append(signed(_pop(stack), _bits(step)) & WORD)
    elif step.op is Op.ZERO_EXT:
        stack.append(_pop(stack) & ((1 << _bits(step)) - 1))
    elif step.op is Op.LOG_NOT:
        stack.append(int(not _pop(stack)))
    elif step.op is Op.BIT_NOT:
        stack.append(~_pop(stack) & WORD)
    elif step.op is Op.POP:
        _pop(stack)
    else:
        arrange(stack, step)


def arrange(stack: list[int], step: Instruction) -> None:
    """Do an instruction that only copies or moves what is on the stack."""
    depth = {Op.DUP: 1, Op.SWAP: 2, Op.ROT: 3, Op.PICK: step.operand + 1}[step.op]
    if len(stack) < depth:
        raise BadExpression("the stack underflows")
    if step.op in (Op.DUP, Op.PICK):
        stack.append(stack[-depth])
    else:
        stack.insert(len(stack) - depth, stack.pop())


def signed(value: int, bits: int = 64) -> int:
    """Return the low `bits` of a word as a signed number."""
    value &= (1 << bits) - 1
    return value - (value >> (bits - 1) << bits)


def _decoded(code: bytes) -> Iterator[tuple[int, Instruction]]:
    offset = 0
    while offset < len(code):
        try:
            op = Op(code[offset])
        except ValueError:
            raise BadExpression(f"instruction {code[offset]:#04x} is not known") from None
        following = offset + 1 + _OPERAND_BYTES.get(op, 0)
        if following > len(code):
            raise BadExpression("it is cut off")
        operand = int.from_bytes(code[offset + 1 : following], "big")
        yield offset, Instruction(op, operand, following)
        offset = following


def _pop(stack: list[int]) -> int:
    if not stack:
        raise BadExpression("the stack underflows")
    return stack.pop()


def _bits(step: Instruction) -> int:
    if not 1 <= step.operand <= 64:
        raise BadExpression(f"{step.operand} bits cannot be extended")
    return step.operand


def _divided(first: int, second: int) -> int:
    """Divide towards zero, as C does."""
    if second == 0:
        raise BadExpression("it divides by zero")
    quotient = abs(first) // abs(second)
    return -quotient if (first < 0) != (second < 0) else quotient


def _remainder(first: int, second: int) -> int:
    return first - _divided(first, second) * second


def _shifted(value: int, count: int) -> int:
    """Shift right; 64 and more leave the sign only, as Python's own shift does."""
    return value >> min(count, 64)


_BINARY: Final[dict[Op, Callable[[int, int], int]]] = {
    Op.ADD: lambda a, b: a + b,
    Op.SUB: lambda a, b: a - b,
    Op.MUL: lambda a, b: a * b,
    Op.DIV_SIGNED: lambda a, b: _divided(signed(a), signed(b)),
    Op.DIV_UNSIGNED: _divided,
    Op.REM_SIGNED: lambda a, b: _remainder(signed(a), signed(b)),
    Op.REM_UNSIGNED: _remainder,
    Op.LSH: lambda a, b: a << b if b < 64 else 0,
    Op.RSH_SIGNED: lambda a, b: _shifted(signed(a), b),
    Op.RSH_UNSIGNED: _shifted,
    Op.BIT_AND: lambda a, b: a & b,
    Op.BIT_OR: lambda a, b: a | b,
    Op.BIT_XOR: lambda a, b: a ^ b,
    Op.EQUAL: lambda a, b: int(a == b),
    Op.LESS_SIGNED: lambda a, b: int(signed(a) < signed(b)),
    Op.LESS_UNSIGNED: lambda a, b: int(a < b),
}
