"""How values move on AArch64 (Arm ARM, C6 and C7), for `dataflow`."""

from __future__ import annotations

import re
from typing import Any, Final

from capstone import arm64  # type: ignore[import-untyped]

from retrograde.index.questions.dataflow import Slice, Source
from retrograde.index.questions.operands import inputs

_MOVES: Final = frozenset({"mov", "fmov", "umov", "sxtb", "sxth", "sxtw", "uxtb", "uxth", "uxtw"})
_CONSTANTS: Final = frozenset({"movz", "movn", "adr", "adrp", "bl", "blr"})
_EXTENDED: Final = {"b": 1, "h": 2, "w": 4}
_NAMED: Final = {"fp": "x29", "lr": "x30", "wsp": "sp"}
_VECTORS: Final = {"v": 16, "q": 16, "d": 8, "s": 4, "h": 2, "b": 1}
_COMPARING: Final = frozenset({"cmp", "cmn", "tst", "svc"})
"""What Capstone says writes a register, and does not."""

_FIRMWARE: Final = frozenset({"hvc", "smc"})
"""QEMU's own firmware answers these (PSCI), in x0."""

_SHIFTS: Final = frozenset({"lsl", "lsr", "asr", "ubfx", "sbfx", "ubfiz", "sbfiz"})
"""What Capstone says reads what it writes, and does not."""

_ZERO: Final = ("xzr", "wzr")
_STORES: Final = re.compile(r"st(l|u|t|n|x|lx|lu)?[rp](b|h)?")
_SWAPS: Final = re.compile(r"(swp|cas|ld(add|clr|eor|set|smax|smin|umax|umin))(a|l|al)?[bh]?")


class Arm64:
    """AArch64."""

    def slice_of(self, name: str) -> Slice:
        """Return what register `name` is a part of: x0 to x30, or a vector v0 to v31."""
        if match := re.fullmatch(r"w(\d+)", name):
            return Slice(f"x{match[1]}", 0, 4)
        if match := re.fullmatch(r"([vqdshb])(\d+)", name):
            return Slice(f"v{match[2]}", 0, _VECTORS[match[1]])
        return Slice(_NAMED.get(name, name), 0, 4 if name == "wsp" else 8)

    def written(self, insn: Any) -> list[Slice]:
        """Return what the instruction writes: of a register all, since it clears the rest."""
        name = insn.mnemonic
        if name in _COMPARING:
            return []
        _, writes = insn.regs_access()
        slices = [self.slice_of(insn.reg_name(register)) for register in writes]
        if name in _FIRMWARE:
            slices = [Slice("x0", 0, 8)]
        if _SWAPS.fullmatch(name):
            slices = [Slice(self._got(insn), 0, 8)]
        return [
            Slice(one.register, 0, 16 if one.register.startswith("v") else 8)
            for one in slices
            if one.register != "nzcv"
        ]

    def source(self, insn: Any, register: str) -> Source:
        """Return what `register` gets."""
        name, computed = insn.mnemonic, Source("computed", reads=inputs(insn))
        values = self._values(insn)
        if name == "mrs" or name in _FIRMWARE:
            return Source("input")
        if any(operand.vector_index >= 0 for operand in insn.operands):
            return computed  # a part of a vector
        if name in _SHIFTS:
            return Source("computed", reads=(insn.reg_name(insn.operands[1].reg),))
        if name in _CONSTANTS or (register == "x30" and name.startswith("bl")):
            return Source("constant")
        if _SWAPS.fullmatch(name):
            return Source("load")
        if name.startswith("ld"):
            if register not in values:
                return Source("computed", reads=(register,))
            return Source("load", index=values.index(register), parts=len(values))
        if name.startswith("csel"):
            return computed
        if name in _MOVES or (name in ("add", "orr") and len(insn.operands) == 2):
            return self._of(insn, insn.operands[1], name)
        return computed

    def stored(self, insn: Any) -> list[Source]:
        """Return what it stores: one value, or those of a pair."""
        name = insn.mnemonic
        values = [one for one in insn.operands if one.type == arm64.ARM64_OP_REG]
        if name.startswith(("stx", "stlx", "cas")):
            values = values[1:]  # the first says whether it was stored, or what was there
        if name.startswith(("swp", "cas")):
            values = values[:1]
        if values and (_STORES.fullmatch(name) or name.startswith(("swp", "cas"))):
            return [self._of(insn, one, "") for one in values]
        return [Source("computed", reads=inputs(insn))]

    def _got(self, insn: Any) -> str:
        """Return the register that an atomic instruction gets what was in memory in."""
        return self._values(insn)[0 if insn.mnemonic.startswith("cas") else 1]

    def _values(self, insn: Any) -> list[str]:
        return [
            self.slice_of(insn.reg_name(one.reg)).register
            for one in insn.operands
            if one.type == arm64.ARM64_OP_REG
        ]

    def _of(self, insn: Any, operand: Any, name: str) -> Source:
        if operand.type != arm64.ARM64_OP_REG:
            return Source("constant")
        register = insn.reg_name(operand.reg)
        if register in _ZERO:
            return Source("constant")
        part = self.slice_of(register)
        count = _EXTENDED[name[-1]] if name.startswith(("sxt", "uxt")) else part.count
        return Source("copy", Slice(part.register, 0, count))
