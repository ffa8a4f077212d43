"""What the `g` packet of an x86 machine does not tell: its code segment, its table of handlers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from retrograde.errors import InternalError
from retrograde.isa.isa import Isa
from retrograde.machine.memorymap import Human

QUESTION: Final = "info registers"
"""The human monitor's command whose answer is read here (x86_cpu_dump_state in QEMU's
target/i386/cpu-dump.c)."""

_CS = re.compile(r"^CS =[0-9a-f]{4} ([0-9a-f]{8,16}) ", re.M)

_IDT = re.compile(r"^IDT=\s+([0-9a-f]{8,16}) ([0-9a-f]{8})", re.M)


def code_base(answer: str) -> int:
    """Return the linear address of offset 0 of the code segment.

    `answer` is QEMU's to QUESTION.
    """
    match = _CS.search(answer)
    if not match:
        raise InternalError("QEMU does not say where the code segment is.")
    return int(match[1], 16)


def linear_pc(isa: Isa, registers: Mapping[str, int], answer: str) -> int:
    """Return the linear address of the next instruction, when the registers do not tell."""
    return code_base(answer) + registers[isa.pc] & 0xFFFFFFFF


async def ask_linear_pc(isa: Isa, registers: Mapping[str, int], human: Human) -> int:
    """Return the linear address of the next instruction of a machine parked with `registers`.

    `human` runs a command of QEMU's human monitor; it is asked only when needed.
    """
    known = isa.linear_pc(registers)
    return known if known is not None else linear_pc(isa, registers, await human(QUESTION))


async def ask_handlers_table(human: Human) -> tuple[int, int] | None:
    """Return the linear address of the interrupt descriptor table, and its limit in bytes."""
    found = _IDT.search(await human(QUESTION))
    return (int(found[1], 16), int(found[2], 16)) if found else None
