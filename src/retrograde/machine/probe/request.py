"""What the probe can be asked to watch for, checked and turned into its tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from retrograde.errors import UsageError
from retrograde.machine.probe import page as layout
from retrograde.wire.agent import Expression

if TYPE_CHECKING:
    from numpy.typing import NDArray

Comparison = Literal["==", "!=", "<", "<=", ">", ">="]
Access = Literal["r", "w", "rw"]

COMPARISONS: Final[tuple[Comparison, ...]] = ("==", "!=", "<", "<=", ">", ">=")
ACCESSES: Final[dict[Access, int]] = {"r": 1, "w": 2, "rw": 3}
WORD: Final = (1 << 64) - 1

PCS: Final = frozenset({"rip", "eip", "pc"})
"""Program counters. A breakpoint's own address says what they are."""

LAZY: Final = frozenset({"eflags"})
"""Registers that are up to date only in blocks of one instruction (`one-insn-per-tb on`)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`(operand & mask) comparison value`, unsigned 64-bit, checked before the instruction.

    `operand` is a register's name as in QEMU's target description, or a virtual address
    of `size` bytes (1 to 8, in the guest's byte order). Memory that cannot be read makes
    the condition false. Those in `PCS` are refused, those in `LAZY` need short blocks.
    """

    operand: str | int
    comparison: Comparison
    value: int
    mask: int = WORD
    size: int = 8


@dataclass(frozen=True, slots=True)
class Check:
    """gdb's own condition: true, too, where it cannot be evaluated.

    `names` are those of the registers that it reads, by the numbers it has for them, subject to
    what is said of those in Condition.
    """

    expression: Expression
    names: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A linear address (on x86 with the code segment's base); all `conditions` must hold.

    So must any of `checks`, if there are any.
    """

    pc: int
    conditions: tuple[Condition, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def is_lazy(self) -> bool:
        """Whether a condition reads a register in `LAZY`."""
        return any(one.operand in LAZY for one in self.conditions)


@dataclass(frozen=True, slots=True)
class Watch:
    """`length` bytes from `start`, virtual or physical, and the accesses that matter."""

    start: int
    length: int
    access: Access = "w"
    physical: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What is to be logged about memory, so that it can be told at each position.

    Where the pages of virtual memory at `places` lie, and besides the stores what deliveries
    may have pushed into RAM: `ram` are ranges of physical addresses, first and last.
    """

    ram: tuple[tuple[int, int], ...]
    places: tuple[int, ...] = ()

    def tables(self) -> dict[str, NDArray[Any]]:
        """Return the contents of the probe's tables by name."""
        return {
            "ram": np.array(list(self.ram), layout.RANGE),
            "seen": np.array(self.places, np.uint64),
        }


def tables(
    breakpoints: Iterable[Breakpoint], watches: Iterable[Watch], registers: Iterable[str]
) -> dict[str, NDArray[Any]]:
    """Return the contents of the probe's tables by name; UsageError for what it cannot do.

    Registers that only conditions need come after `registers` in their table.
    """
    names = list(dict.fromkeys(registers))
    stops: list[tuple[int, ...]] = []
    conditions: list[tuple[int, ...]] = []
    expressions: list[tuple[int, int]] = []
    code = b""
    ordered = sorted(breakpoints, key=lambda stop: stop.pc)
    if any(stop.pc == after.pc for stop, after in pairwise(ordered)):
        raise UsageError("Two breakpoints have the same address.", "Join their conditions.")
    for stop in ordered:
        _require_word(stop.pc, "address of a breakpoint")
        where = len(conditions), len(stop.conditions), len(expressions), len(stop.checks)
        stops.append((stop.pc, *where))
        conditions += [_condition(one, names) for one in stop.conditions]
        for check in stop.checks:
            part = _code(check, names)
            expressions.append((len(code), len(part)))
            code += part
    return {
        "breakpoints": np.array(stops, layout.BREAKPOINT),
        "conditions": np.array(conditions, layout.CONDITION),
        "expressions": np.array(expressions, layout.EXPRESSION),
        "code": np.frombuffer(code, np.uint8),
        "watches": np.array([_watch(watch) for watch in watches], layout.WATCH),
        "registers": _names(names),
    }


def _watch(watch: Watch) -> tuple[int, ...]:
    if watch.length < 1 or watch.start < 0 or watch.start + watch.length - 1 > WORD:
        raise UsageError(
            f"{watch.length} bytes from {watch.start:#x} cannot be watched.",
            "Give a range of at least one byte that does not wrap.",
        )
    last = watch.start + watch.length - 1
    return (watch.start, last, ACCESSES[watch.access], int(watch.physical))


def _condition(condition: Condition, names: list[str]) -> tuple[int, ...]:
    """Return a row of the condition table; its register is added to `names`."""
    if not 1 <= condition.size <= 8:
        raise UsageError(f"A condition cannot compare {condition.size} bytes.", "Give 1 to 8.")
    register = address = 0
    if isinstance(condition.operand, str):
        if condition.operand in PCS:
            raise UsageError(
                f"A condition cannot be on {condition.operand}.",
                "The breakpoint's address says what it is.",
            )
        if condition.operand not in names:
            names.append(condition.operand)
        register = names.index(condition.operand)
    else:
        address = condition.operand
        _require_word(address, "address of a condition")
    comparison = COMPARISONS.index(condition.comparison)
    in_memory = int(not isinstance(condition.operand, str))
    mask, value = condition.mask & WORD, condition.value & WORD
    return (mask, value, address, register, comparison, in_memory, condition.size)


def _code(check: Check, names: list[str]) -> bytes:
    """Return a check's code with places in `names` for registers, which are added to it."""
    known = dict(check.names)
    for name in known.values():
        if name not in names:
            names.append(name)
    return check.expression.renumbered(lambda number: names.index(known[number]))


def _names(names: Sequence[str]) -> NDArray[Any]:
    for name in names:
        if not 0 < len(name.encode()) < layout.NAME_BYTES:
            raise UsageError(f"{name!r} is not the name of a register.")
    return np.array([name.encode() for name in names], f"S{layout.NAME_BYTES}")


def _require_word(value: int, what: str) -> None:
    if not 0 <= value <= WORD:
        raise UsageError(f"{value:#x} cannot be the {what}.", "Give a 64-bit number.")
