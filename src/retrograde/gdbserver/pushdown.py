"""Handing conditions to the probe, which checks them while the guest runs.

A condition that is an "and" of comparisons between a constant and one register, or
memory at a constant address, becomes the probe's own conditions (millions a second);
any other is evaluated by us, at each hit. Found by executing the bytecode with unknown
values, down both ways of each branch: what all ways to a true end have in common must be
one way only, because the probe knows "and" and not "or".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from retrograde.gdbserver.agent import (
    CONSTANTS,
    REFERENCES,
    WORD,
    BadExpression,
    Expression,
    Instruction,
    Op,
    arrange,
    compute,
    signed,
)
from retrograde.machine.probe_request import LAZY, PCS, Comparison, Condition

MAX_STEPS: Final = 500
NEGATED: Final[dict[Comparison, Comparison]] = {
    "==": "!=",
    "!=": "==",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}

RegisterName = Callable[[int], str | None]


class _NotForTheProbe(Exception):
    """The condition is none the probe can check."""


@dataclass(frozen=True, slots=True)
class _Unknown:
    """The low `bits` of a register or of memory, extended with zeros or the sign."""

    operand: str | int
    size: int
    bits: int
    mask: int = WORD
    is_signed: bool = False


_Test = tuple[Condition, ...]
"""True when all of them hold."""

_Value = int | _Unknown | _Test


def conditions_of(expression: Expression, name: RegisterName) -> tuple[Condition, ...] | None:
    """Return what the probe is to check; None when that cannot say the same.

    `name` tells the name of a register by its number.
    """
    try:
        ways = _Walk(expression, name).ways_to_true(0, [], ())
    except (_NotForTheProbe, BadExpression):
        return None
    return ways[0] if len(ways) == 1 else None


class _Walk:
    def __init__(self, expression: Expression, name: RegisterName) -> None:
        self._expression = expression
        self._name = name
        self._steps = 0

    def ways_to_true(self, offset: int, stack: list[_Value], path: _Test) -> list[_Test]:
        """Return the tests passed on each way from `offset` to a true end."""
        while self._steps < MAX_STEPS:
            self._steps += 1
            step = self._expression.instruction(offset)
            offset = step.following
            if step.op is Op.END:
                return [path + way for way in _ways(_popped(stack), True)]
            if step.op is Op.GOTO:
                offset = step.operand
            elif step.op is Op.IF_GOTO:
                value = _popped(stack)
                return [
                    found
                    for taken, at in ((True, step.operand), (False, offset))
                    for way in _ways(value, taken)
                    for found in self.ways_to_true(at, stack.copy(), path + way)
                ]
            else:
                self._do(stack, step)
        raise _NotForTheProbe

    def _do(self, stack: list[_Value], step: Instruction) -> None:
        op = step.op
        if op is Op.REG:
            name = self._name(step.operand)
            # Few hits are evaluated sooner than a search in short blocks is done.
            if name is None or name in PCS | LAZY:
                raise _NotForTheProbe
            stack.append(_Unknown(name, 8, 64))
        elif op in REFERENCES:
            address, size = _popped(stack), REFERENCES[op]
            if not isinstance(address, int):
                raise _NotForTheProbe
            stack.append(_Unknown(address, size, 8 * size))
        elif op in CONSTANTS:
            stack.append(step.operand)
        elif op in (Op.DUP, Op.SWAP, Op.ROT, Op.PICK):
            arrange(stack, step)  # type: ignore[arg-type]  # moves whatever is there
        elif op in (Op.EXT, Op.ZERO_EXT):
            stack.append(_extended(_popped(stack), step))
        elif op is Op.LOG_NOT:
            stack.append(_one_way(_popped(stack), False))
        elif op in (Op.EQUAL, Op.LESS_SIGNED, Op.LESS_UNSIGNED, Op.BIT_AND):
            second, first = _popped(stack), _popped(stack)
            stack.append(_combined(step, first, second))
        else:
            self._compute_known(stack, step)

    def _compute_known(self, stack: list[_Value], step: Instruction) -> None:
        known = [value for value in stack[-2:] if isinstance(value, int)]
        if len(known) != len(stack[-2:]):
            raise _NotForTheProbe
        del stack[-2:]
        compute(known, step)
        stack += known


def _popped(stack: list[_Value]) -> _Value:
    if not stack:
        raise _NotForTheProbe
    return stack.pop()


def _ways(value: _Value, wanted: bool) -> list[_Test]:
    """Return the tests, one way each, that make `value` true, or false."""
    if isinstance(value, int):
        return [()] if bool(value) == wanted else []
    if isinstance(value, _Unknown):
        return [_compared(value, "!=" if wanted else "==", 0)]
    if wanted:
        return [value]
    return [(*value[:i], replace(one, comparison=NEGATED[one.comparison]))
            for i, one in enumerate(value)]  # fmt: skip


def _one_way(value: _Value, wanted: bool) -> _Value:
    ways = _ways(value, wanted)
    if len(ways) > 1:
        raise _NotForTheProbe
    return (ways[0] or 1) if ways else 0


def _extended(value: _Value, step: Instruction) -> _Value:
    bits = step.operand
    if isinstance(value, int):
        stack = [value]
        compute(stack, step)
        return stack[0]
    if not isinstance(value, _Unknown) or not 1 <= bits <= 64:
        raise _NotForTheProbe
    sign = step.op is Op.EXT
    if value.mask != WORD:
        if value.mask >> (bits - sign):
            raise _NotForTheProbe
        return value
    if bits > value.bits:
        if value.is_signed and not sign:
            raise _NotForTheProbe
        return value
    return replace(value, bits=bits, is_signed=sign and bits < 64)


def _combined(step: Instruction, first: _Value, second: _Value) -> _Value:
    if isinstance(first, int) and isinstance(second, int):
        stack = [first, second]
        compute(stack, step)
        return stack[0]
    if step.op is Op.BIT_AND:
        return _masked(first, second)
    if step.op is Op.EQUAL:
        if isinstance(first, int):
            first, second = second, first
        if isinstance(first, tuple) and second == 0:
            return _one_way(first, False)
        return _compared(_as_unknown(first), "==", _as_constant(second))
    compare = _compared_signed if step.op is Op.LESS_SIGNED else _compared
    if isinstance(second, int):
        return compare(_as_unknown(first), "<", second)
    return compare(_as_unknown(second), ">", _as_constant(first))


def _masked(first: _Value, second: _Value) -> _Value:
    if isinstance(first, int):
        first, second = second, first
    value, mask = _as_unknown(first), _as_constant(second)
    if value.is_signed and mask >> value.bits:
        raise _NotForTheProbe
    return replace(value, mask=value.mask & mask & _ones(value), bits=64, is_signed=False)


def _as_unknown(value: _Value) -> _Unknown:
    if not isinstance(value, _Unknown):
        raise _NotForTheProbe
    return value


def _as_constant(value: _Value) -> int:
    if not isinstance(value, int):
        raise _NotForTheProbe
    return value


def _ones(value: _Unknown) -> int:
    return (1 << value.bits) - 1


def _compared(value: _Unknown, comparison: Comparison, constant: int) -> _Test:
    """Compare as unsigned words: exact for what is extended with zeros."""
    mask = value.mask & _ones(value)
    if value.is_signed:
        if comparison not in ("==", "!=") or signed(constant, value.bits) != signed(constant):
            raise _NotForTheProbe
        constant &= _ones(value)
    return (Condition(value.operand, comparison, constant, mask, value.size),)


def _compared_signed(value: _Unknown, comparison: Comparison, constant: int) -> _Test:
    """Compare as signed numbers, where the answer is one unsigned range."""
    bound = signed(constant)
    if not value.is_signed and (value.bits < 64 or value.mask >> 63 == 0):
        # Never negative as a word: signed and unsigned agree on constants from 0 on.
        if bound < 0:
            raise _NotForTheProbe
        return _compared(value, comparison, constant)
    if value.mask != WORD:
        raise _NotForTheProbe
    half, ones = 1 << (value.bits - 1), _ones(value)
    if not -half <= bound < half:
        raise _NotForTheProbe

    def test(comparison: Comparison, limit: int) -> Condition:
        return Condition(value.operand, comparison, limit & ones, ones, value.size)

    if comparison == "<" and bound <= 0:
        return (test(">=", half), test("<", bound)) if bound else (test(">=", half),)
    if comparison == ">" and bound >= -1:
        return (test("<", half), test(">", bound)) if bound >= 0 else (test("<", half),)
    raise _NotForTheProbe
