"""What an instruction does with values: where what it stores, or puts in a register, is from.

Pure: of one instruction as Capstone decodes it. Which bytes it moved is the probe's to
tell; here is told what kind of thing it does. The tables of the families of ISAs are
in `dataflow_x86`, `dataflow_arm64` and `dataflow_riscv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["load", "copy", "constant", "computed", "input"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes `first` to before `first + count`, by significance, of a register."""

    register: str
    first: int
    count: int

    def overlaps(self, other: Slice) -> bool:
        """Whether a byte is in both."""
        return self.register == other.register and (
            self.first < other.first + other.count and other.first < self.first + self.count
        )

    def covers(self, other: Slice) -> bool:
        """Whether all bytes of `other`, of the same register, are in it."""
        end = other.first + other.count
        return self.first <= other.first and end <= self.first + self.count


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value is from.

    A "load" is part `index` of the `parts` of equal size that the instruction read; a
    "copy" is of `copied`; what is "computed" depends on `reads` (see `operands`), and "input"
    is from outside the program: a port, a clock, a system register. With `is_maybe` the
    instruction may as well have left alone what was there.
    """

    kind: Kind
    copied: Slice | None = None
    index: int = 0
    parts: int = 1
    reads: tuple[str, ...] = ()
    is_maybe: bool = False


class Dataflow(Protocol):
    """A family of ISAs; `insn` is a `capstone.CsInsn` with details."""

    def slice_of(self, name: str) -> Slice:
        """Return what Capstone's register `name` is a part of."""

    def written(self, insn: Any) -> list[Slice]:
        """Return what the instruction writes of registers."""

    def source(self, insn: Any, register: str) -> Source:
        """Return what a register that the instruction writes gets."""

    def stored(self, insn: Any) -> list[Source]:
        """Return what the values are that it stores, of equal size, in order of address."""
