"""Interrupts and exceptions with their reasons: what the probe read where a handler begins.

What a vector, code and level mean differs by target:

=========  =====================================  ==========================  ================
target     vector                                 code                        level
=========  =====================================  ==========================  ================
x86        of the gate                            error code                  CPL
aarch64    offset in the table of vectors         ESR of the handler's level  exception level
arm        the same                               DFSR or IFSR of an abort
riscv      cause, without the bit of interrupts   instruction, if illegal     privilege mode
ppc        offset of the vector                   DSISR, or bits of SRR1      MSR.PR
=========  =====================================  ==========================  ================

Sources of the names: Intel SDM volume 3, table 6-1; Arm ARM, ESR_EL1.EC; RISC-V privileged
ISA, mcause; Power ISA 3.1B book III, 7.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from retrograde.isa.isa import X86
from retrograde.machine.probe.page import TrapFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["interrupt", "exception"]

FIELDS: Final = {
    "vector": TrapFlag.VECTOR,
    "code": TrapFlag.CODE,
    "address": TrapFlag.ADDRESS,
    "pc": TrapFlag.PC,
    "privilege": TrapFlag.PRIVILEGE,
}

_X86: Final = {
    **dict(enumerate(("#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF"))),
    **dict(enumerate(("#TS", "#NP", "#SS", "#GP", "#PF"), 10)),
    **dict(enumerate(("#MF", "#AC", "#MC", "#XM", "#VE", "#CP"), 16)),
    **dict(enumerate(("#HV", "#VC", "#SX"), 28)),
}

_ARM64_KINDS: Final = {1: "IRQ", 2: "FIQ", 3: "SError"}
_ARM64: Final = {
    0x00: "undefined instruction",
    0x01: "trapped wfi",
    0x07: "trapped FP access",
    0x0E: "illegal state",
    **dict.fromkeys((0x11, 0x15), "svc"),
    **dict.fromkeys((0x12, 0x16), "hvc"),
    **dict.fromkeys((0x13, 0x17), "smc"),
    0x18: "trapped system register",
    0x19: "trapped SVE access",
    **dict.fromkeys((0x20, 0x21), "instruction abort"),
    0x22: "misaligned pc",
    **dict.fromkeys((0x24, 0x25), "data abort"),
    0x26: "misaligned sp",
    0x2C: "FP exception",
    **dict.fromkeys((0x30, 0x31), "breakpoint"),
    **dict.fromkeys((0x32, 0x33), "software step"),
    **dict.fromkeys((0x34, 0x35), "watchpoint"),
    0x3C: "brk",
}
_ARM32: Final = {
    0x04: "undefined instruction",
    0x08: "svc",
    0x0C: "prefetch abort",
    0x10: "data abort",
    0x18: "IRQ",
    0x1C: "FIQ",
}
_RISCV: Final = {
    0: "misaligned fetch",
    1: "fetch access fault",
    2: "illegal instruction",
    3: "breakpoint",
    4: "misaligned load",
    5: "load access fault",
    6: "misaligned store",
    7: "store access fault",
    8: "ecall from U",
    9: "ecall from S",
    10: "ecall from VS",
    11: "ecall from M",
    12: "fetch page fault",
    13: "load page fault",
    15: "store page fault",
    20: "fetch guest-page fault",
    21: "load guest-page fault",
    22: "virtual instruction",
    23: "store guest-page fault",
}
_RISCV_LATE: Final = {
    1: "supervisor software interrupt",
    3: "machine software interrupt",
    5: "supervisor timer interrupt",
    7: "machine timer interrupt",
    9: "supervisor external interrupt",
    11: "machine external interrupt",
}
_POWER: Final = {
    0x100: "system reset",
    0x200: "machine check",
    0x300: "data storage",
    0x380: "data segment",
    0x400: "instruction storage",
    0x480: "instruction segment",
    0x500: "external interrupt",
    0x600: "alignment",
    0x700: "program",
    0x800: "FP unavailable",
    0x900: "decrementer",
    0x980: "hypervisor decrementer",
    0xA00: "doorbell",
    0xC00: "system call",
    0xD00: "trace",
    0xE00: "hypervisor data storage",
    0xE20: "hypervisor instruction storage",
    0xE40: "hypervisor emulation assistance",
    0xE60: "hypervisor maintenance",
    0xE80: "hypervisor doorbell",
    0xEA0: "hypervisor virtualization",
    0xF00: "performance monitor",
    0xF20: "VMX unavailable",
    0xF40: "VSX unavailable",
    0xF60: "facility unavailable",
    0xF80: "hypervisor facility unavailable",
}


@dataclass(frozen=True, slots=True)
class Trap:
    """An interrupt or exception taken at `position`; what is None is not known.

    `pc` is where it came, as the processor keeps it: of a fault the address of the
    instruction, else mostly of the next one. `privilege` is the level there.
    """

    position: int
    kind: Kind
    name: str | None = None
    vector: int | None = None
    code: int | None = None
    address: int | None = None
    pc: int | None = None
    privilege: int | None = None

    def __str__(self) -> str:
        """Return it as one line for people."""
        number = None if self.vector is None else f"{self.kind} {self.vector:#x}"
        parts = [self.name or number or f"{self.kind} whose reason is not known"]
        if self.code is not None:
            parts.append(f"code {self.code:#x}")
        if self.address is not None:
            parts.append(f"address {self.address:#x}")
        if self.pc is not None:
            level = "" if self.privilege is None else f" at level {self.privilege}"
            parts.append(f"from {self.pc:#x}{level}")
        return ", ".join(parts)


def trap_of(row: Any, kind: Kind, target: str) -> Trap:
    """Return what one of the probe's records (TRAP) says; `kind` is what the log says it was."""
    known = int(row["known"])
    told = {name: int(row[name]) if known & flag else None for name, flag in FIELDS.items()}
    name = _name(target, kind, int(row["vector"]), int(row["code"]), known)
    return Trap(int(row["position"]), kind, name, **told)


def columns_of(
    rows: NDArray[Any], positions: NDArray[Any], are_exceptions: NDArray[np.bool_], target: str
) -> dict[str, NDArray[Any]]:
    """Return deliveries as columns: all of `positions`, with the reasons that `rows` know.

    `rows` are the probe's records; `number` in them is an index into the others.
    """
    columns: dict[str, NDArray[Any]] = {
        name: np.ma.array(np.zeros(len(positions), np.uint64), mask=True) for name in FIELDS
    }
    names = np.full(len(positions), None, object)
    at = rows["number"].astype(np.int64)
    for name, flag in FIELDS.items():
        is_known = rows["known"] & np.uint64(flag) != 0
        columns[name][at[is_known]] = rows[name][is_known]
    kinds = np.where(are_exceptions, "exception", "interrupt").astype(object)
    told = (rows[name].tolist() for name in ("vector", "code", "known"))
    for number, vector, code, known in zip(at.tolist(), *told, strict=True):
        names[number] = _name(target, kinds[number], vector, code, known)
    return {"position": positions.astype(np.int64), "kind": kinds, "name": names, **columns}


def _name(target: str, kind: Kind, vector: int, code: int, known: int) -> str | None:
    """Return what the processor's manual calls it; `known` says which of its fields are."""
    if not known & TrapFlag.VECTOR:
        return None
    if target in X86:
        return _x86_name(kind, vector, is_called=bool(known & TrapFlag.CALLED))
    if target == "aarch64":
        return _ARM64_KINDS.get(vector >> 7 & 3) or _ARM64.get(code >> 26 & 0x3F)
    if target.startswith("riscv"):
        return (_RISCV if kind == "exception" else _RISCV_LATE).get(vector)
    return (_ARM32 if target == "arm" else _POWER).get(vector)


def _x86_name(kind: Kind, vector: int, *, is_called: bool) -> str | None:
    if kind == "interrupt":
        return None
    return f"int {vector:#x}" if is_called else x86_exception(vector)


def x86_exception(vector: int) -> str:
    """Return an exception's name; behind those the processor has, none but `int n` comes."""
    return _X86.get(vector, f"int {vector:#x}")
