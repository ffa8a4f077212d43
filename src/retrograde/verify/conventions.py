"""Calls, returns and context on each ISA, as single steps show them: the oracle's view.

Written apart from the probe's tables (probe/isa.c), so that both are not wrong alike:
instructions are told by their fields here, and by masks there. Registers are gdb's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Registers = Mapping[str, int]
Kind = Literal["call", "return", ""]


@dataclass(frozen=True)
class Conventions:
    """How one ISA calls.

    `kind` tells of an instruction's bytes, in little-endian order where the ISA has words,
    whether it calls or returns, and how many bytes a return drops. `link` says whether the
    return address goes to a register. Calls are told where `is_wide`.
    """

    sp: str
    arguments: tuple[str, ...]
    space: str
    privilege: Callable[[Registers], int]
    is_user: Callable[[Registers], bool]
    is_wide: Callable[[Registers], bool]
    kind: Callable[[bytes], tuple[Kind, int]]
    link: bool = True

    @property
    def special(self) -> tuple[str, ...]:
        """Registers that QEMU may leave out of the `g` packet."""
        return (self.space, *(("priv",) if self.space == "satp" else ()))


def _x86_kind(code: bytes) -> tuple[Kind, int]:
    while code[0] in b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65" or 0x40 <= code[0] <= 0x4F:
        code = code[1:]
    if code[0] == 0xE8 or (code[0] == 0xFF and code[1] >> 3 & 7 == 2):
        return "call", 0
    if code[0] == 0xC3:
        return "return", 0
    return ("return", int.from_bytes(code[1:3], "little")) if code[0] == 0xC2 else ("", 0)


def _aarch64_kind(code: bytes) -> tuple[Kind, int]:
    word = int.from_bytes(code[:4], "little")
    if word >> 26 == 0b100101:
        return "call", 0
    # Unconditional branch (register): 1101011 opc(4) 11111 op3(6) Rn(5) op4(5).
    if word >> 25 == 0b1101011 and word >> 16 & 0x1F == 0b11111 and word >> 12 & 0xF == 0:
        operation = word >> 21 & 0b111  # bit 24 only says which modifier authenticates
        return ("", "call", "return", "", "", "", "", "")[operation], 0
    return "", 0


def _riscv_kind(code: bytes) -> tuple[Kind, int]:
    half = int.from_bytes(code[:2], "little")
    if half & 3 != 3:  # c.jr and c.jalr: funct4(4) rs1(5) rs2(5) op(2)
        source = half >> 7 & 31
        if half & 3 != 2 or half >> 13 != 0b100 or half >> 2 & 31 or not source:
            return "", 0
        if half >> 12 & 1:
            return "call", 0
        return ("return" if source in (1, 5) else ""), 0
    word = int.from_bytes(code[:4], "little")
    opcode, target, source = word & 0x7F, word >> 7 & 31, word >> 15 & 31
    if opcode == 0x6F or (opcode == 0x67 and word >> 12 & 7 == 0):
        if target in (1, 5):
            return "call", 0
        if opcode == 0x67 and target == 0 and source in (1, 5):
            return "return", 0
    return "", 0


def _ppc_kind(code: bytes) -> tuple[Kind, int]:
    word = int.from_bytes(code[:4], "little")
    opcode, links = word >> 26, word & 1
    extended = word >> 1 & 0x3FF
    if opcode in (16, 18) or (opcode == 19 and extended in (16, 528, 560)):
        if links:
            return "call", 0
        return ("return" if opcode == 19 and extended == 16 else ""), 0
    return "", 0


CONVENTIONS: Final[Mapping[str, Conventions]] = {
    "x86_64": Conventions(
        "rsp",
        ("rdi", "rsi", "rdx", "rcx", "r8", "r9"),
        "cr3",
        lambda r: 0 if not r["cr0"] & 1 else 3 if r["eflags"] >> 17 & 1 else r["cs"] & 3,
        lambda r: bool(r["cr0"] & 1 and (r["eflags"] >> 17 & 1 or r["cs"] & 3 == 3)),
        lambda r: bool(r["efer"] >> 10 & 1),
        _x86_kind,
        link=False,
    ),
    "aarch64": Conventions(
        "sp",
        tuple(f"x{number}" for number in range(6)),
        "TTBR0_EL1",
        lambda r: r["cpsr"] >> 2 & 3,
        lambda r: not r["cpsr"] >> 2 & 3,
        lambda r: not r["cpsr"] >> 4 & 1,
        _aarch64_kind,
    ),
    "riscv64": Conventions(
        "sp",
        tuple(f"a{number}" for number in range(6)),
        "satp",
        lambda r: r["priv"],
        lambda r: r["priv"] == 0,
        lambda _registers: True,
        _riscv_kind,
    ),
    "ppc64": Conventions(
        "r1",
        tuple(f"r{number}" for number in range(3, 9)),
        "pidr",
        lambda r: r["msr"] >> 14 & 1,
        lambda r: bool(r["msr"] >> 14 & 1),
        lambda _registers: True,
        _ppc_kind,
    ),
}
"""By QEMU's target. What an ISA's privilege levels and address spaces are is in
`index.tables`."""
