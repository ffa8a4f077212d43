"""How values move on x86 (Intel SDM vol. 2), for `dataflow`."""

from __future__ import annotations

import re
from typing import Any, Final

from capstone import x86  # type: ignore[import-untyped]

from retrograde.index.questions.dataflow import Slice, Source
from retrograde.index.questions.operands import inputs

_MOVES: Final = re.compile(
    r"v?mov(|abs|zx|sx|sxd|d|q|nti|ss|sd|aps|ups|apd|upd|dqa|dqu|dqa32|dqa64|dqu8|dqu16|dqu32"
    r"|dqu64|ntps|ntpd|ntdq|ntdqa)|v?lddqu"
)
_STRINGS: Final = re.compile(r"(rep(n?[ez])? )?(movs|stos|lods|ins|outs|scas|cmps)([bwdq])")
_ZEROING: Final = frozenset({"xor", "sub", "pxor", "vpxor", "xorps", "vxorps", "xorpd"})
_MACHINE: Final = frozenset(
    {
        *("rdtsc", "rdtscp", "rdmsr", "rdpmc", "rdrand", "rdseed", "rdfsbase", "rdgsbase"),
        *("cpuid", "xgetbv", "in", "lar", "lsl", "str", "sldt", "smsw"),
    }
)
_UNTOLD: Final = {"syscall": ("rcx", "r11"), "enter": ("rbp", "rsp")}
"""What Capstone does not say that these write."""

_OF_THE_SYSTEM: Final = re.compile(r"[cdefgs]s|[cd]r\d+")
_SWAPS: Final = frozenset({"xchg", "xadd"})
_STACK: Final = frozenset({"push", "pop", "call", "ret", "leave", "enter"})
_PARTS: Final = {
    **{f"{wide}{c}x": (f"r{c}x", 0, size) for c in "abcd" for wide, size in (("r", 8), ("e", 4))},
    **{f"{c}x": (f"r{c}x", 0, 2) for c in "abcd"},
    **{f"{c}{part}": (f"r{c}x", at, 1) for c in "abcd" for part, at in (("l", 0), ("h", 1))},
    **{
        f"{wide}{name}": (f"r{name}", 0, size)
        for name in ("si", "di", "bp", "sp", "ip")
        for wide, size in (("r", 8), ("e", 4), ("", 2))
    },
    **{f"{name}l": (f"r{name}", 0, 1) for name in ("si", "di", "bp", "sp")},
    **{
        f"r{number}{suffix}": (f"r{number}", 0, size)
        for number in range(8, 16)
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1))
    },
    **{
        f"{wide}mm{number}": (f"xmm{number}", 0, size)
        for number in range(32)
        for wide, size in (("x", 16), ("y", 32), ("z", 64))
    },
}


class X86:
    """x86 in all its modes."""

    def slice_of(self, name: str) -> Slice:
        """Return what register `name` is a part of: that of 64 bits, or of vectors XMM."""
        return Slice(*_PARTS.get(name, (name, 0, 8)))

    def written(self, insn: Any) -> list[Slice]:
        """Return what the instruction writes; 32 bits of a general register clear the rest."""
        if insn.mnemonic in _UNTOLD:
            return [Slice(register, 0, 8) for register in _UNTOLD[insn.mnemonic]]
        _, writes = insn.regs_access()
        slices = [self.slice_of(insn.reg_name(register)) for register in writes]
        if _name(insn) == "cmpxchg":  # the same here
            slices.append(Slice("rax", 0, insn.operands[0].size))
        return [
            Slice(one.register, 0, 8) if one.count == 4 else one
            for one in slices
            if one.register != "rflags"
        ]

    def source(self, insn: Any, register: str) -> Source:
        """Return what `register`, of 64 bits, gets."""
        name, operands = _name(insn), insn.operands
        computed = Source("computed", reads=inputs(insn))
        if string := _string(insn):
            if string == "lods" and register == "rax":
                return Source("load")
            return Source("computed", reads=(register,))
        if name in _MACHINE:
            return Source("input")
        is_named = bool(operands) and self._register(insn, operands[0]) == register
        if register == "rsp" and name in _STACK and not (name == "pop" and is_named):
            return Source("computed", reads=("rbp" if name == "leave" else "rsp",))
        if name in ("pop", "leave"):
            return Source("load")
        if name == "cmpxchg" and register == "rax":
            return Source("load", is_maybe=True)
        if not is_named:
            is_second = len(operands) > 1 and self._register(insn, operands[1]) == register
            return self._of(insn, operands[0]) if name in _SWAPS and is_second else computed
        if name in _ZEROING and len({self._register(insn, one) for one in operands[-2:]}) == 1:
            return Source("constant")
        if name == "lea":
            return self._address(insn, operands[1])
        if name.startswith("cmov"):
            source = self._of(insn, operands[1])
            return Source(source.kind, source.copied, is_maybe=True)
        if name == "xchg" and self._register(insn, operands[1]) == register:
            return computed  # halves of one register
        # Between vector registers some keep what they do not move, and take it from a third.
        is_merged = name.endswith(("ss", "sd")) and operands[-1].type == x86.X86_OP_REG
        if name == "xchg" or (_MOVES.fullmatch(name) and not is_merged):
            return self._of(insn, operands[-1])
        return computed

    def stored(self, insn: Any) -> list[Source]:
        """Return what it stores, which is one value."""
        name, operands = _name(insn), insn.operands
        if string := _string(insn):
            moved = {"movs": Source("load"), "stos": self._of(insn, operands[-1])}
            return [moved.get(string, Source("input"))]
        if name in ("call", "lcall"):
            return [Source("constant")]
        if name == "push":
            return [self._of(insn, operands[0])]
        if name == "pop":
            return [Source("load")]
        if name in ("xchg", "cmpxchg") or (_MOVES.fullmatch(name) and len(operands) > 1):
            # Of an exchange with memory either operand may be written first.
            registers = [one for one in operands if one.type != x86.X86_OP_MEM]
            return [self._of(insn, registers[-1])]
        return [Source("computed", reads=inputs(insn))]

    def _of(self, insn: Any, operand: Any) -> Source:
        if operand.type == x86.X86_OP_REG:
            register = insn.reg_name(operand.reg)
            if _OF_THE_SYSTEM.fullmatch(register):
                return Source("input")
            return Source("copy", self.slice_of(register))
        if operand.type == x86.X86_OP_IMM:
            return Source("constant")
        return Source("load")

    def _address(self, insn: Any, operand: Any) -> Source:
        names = [insn.reg_name(one) for one in (operand.mem.base, operand.mem.index) if one]
        if not names or names == ["rip"]:
            return Source("constant")
        if len(names) == 1 and not operand.mem.disp and operand.mem.scale == 1:
            return Source("copy", self.slice_of(names[0]))
        return Source("computed", reads=tuple(names))

    def _register(self, insn: Any, operand: Any) -> str:
        if operand.type != x86.X86_OP_REG:
            return ""
        return self.slice_of(insn.reg_name(operand.reg)).register


def _string(insn: Any) -> str | None:
    """Return the name, without its size, of a string instruction."""
    match = _STRINGS.fullmatch(_name(insn))
    # SSE has a movsd, too.
    is_vector = match and match[3] == "movs" and insn.operands[1].type == x86.X86_OP_REG
    return None if not match or is_vector or insn.operands[0].size == 16 else match[3]


def _name(insn: Any) -> str:
    return str(insn.mnemonic).removeprefix("lock ")
