"""How values move on RISC-V (unprivileged ISA, I, M, A, F, D and C), for `dataflow`.

Capstone 5 does not tell which registers a RISC-V instruction reads and writes, so it is
told here: all but stores and branches write their first operand.
"""

from __future__ import annotations

import re
from typing import Any, Final

from capstone import CS_OP_REG  # type: ignore[import-untyped]

from retrograde.index.questions.dataflow import Slice, Source

_LOADS: Final = re.compile(r"(c\.)?f?l[bhwd](u|sp)?|lr\.[wd](\.aq)?(\.rl)?")
_STORES: Final = re.compile(r"(c\.)?f?s[bhwd](sp)?")
_CONDITIONAL: Final = re.compile(r"sc\.[wd](\.aq)?(\.rl)?")
_ATOMIC: Final = re.compile(r"amo.*")
_BRANCHES: Final = re.compile(r"(c\.)?(b[a-z]+|jr?)")
_CALLS: Final = re.compile(r"(c\.)?jalr?")
_SYSTEM: Final = re.compile(r"csr.*|f[rs](csr|rm|flags)i?|rd(cycle|time|instret)h?")
_MOVES: Final = frozenset({"mv", "c.mv", "fmv.d", "fmv.x.d", "fmv.d.x"})
_CONSTANTS: Final = frozenset({"li", "c.li", "lui", "c.lui", "auipc"})
_ZERO: Final = "zero"
_NAMED: Final = {"s0": "fp"}
"""Capstone's name, and QEMU's."""


class Riscv:
    """RV64."""

    def slice_of(self, name: str) -> Slice:
        """Return what register `name` is: all of it, by QEMU's name."""
        return Slice(_NAMED.get(name, name), 0, 8)

    def written(self, insn: Any) -> list[Slice]:
        """Return what the instruction writes: of a register all."""
        name, registers = insn.mnemonic, _registers(insn)
        if _CALLS.fullmatch(name):
            # `jal ra` and `jalr ra` are shown without what they write.
            links = registers[:1] if len(insn.operands) > 1 else ["ra"]
        elif _STORES.fullmatch(name) or _BRANCHES.fullmatch(name):
            links = []
        else:
            links = registers[:1]
        return [self.slice_of(one) for one in links if one != _ZERO]

    def source(self, insn: Any, register: str) -> Source:  # noqa: ARG002 - it writes no other
        """Return what `register` gets."""
        name, registers = insn.mnemonic, _registers(insn)
        if _LOADS.fullmatch(name) or _ATOMIC.fullmatch(name):
            return Source("load")
        if _SYSTEM.fullmatch(name):
            return Source("input")
        if name in _CONSTANTS or _CALLS.fullmatch(name):
            return Source("constant")
        if name in _MOVES:
            return self._value(registers[1])
        if name == "sext.w":
            return self._value(registers[1], 4)
        # Short instructions change their first operand.
        reads = registers if name.startswith("c.") and len(registers) < 3 else registers[1:]
        if name == "c.addi4spn":
            reads = ["sp"]
        return Source("computed", reads=tuple(one for one in reads if one != _ZERO))

    def stored(self, insn: Any) -> list[Source]:
        """Return what it stores: one value."""
        name, registers = insn.mnemonic, _registers(insn)
        if _STORES.fullmatch(name):
            return [self._value(registers[0])]
        if _CONDITIONAL.fullmatch(name) or name.startswith("amoswap"):
            return [self._value(registers[1])]
        return [Source("computed", reads=(registers[1], "memory") if len(registers) > 1 else ())]

    def _value(self, register: str, count: int = 8) -> Source:
        if register == _ZERO:
            return Source("constant")
        return Source("copy", Slice(self.slice_of(register).register, 0, count))


def _registers(insn: Any) -> list[str]:
    """Return the names of the register operands; those that say where memory is come last."""
    return [insn.reg_name(one.reg) for one in insn.operands if one.type == CS_OP_REG]
