"""What an instruction reads, as Capstone tells it for all ISAs alike."""

from __future__ import annotations

from typing import Any, Final

from capstone import CS_AC_READ, CS_OP_MEM, CS_OP_REG  # type: ignore[import-untyped]

_FLAGS: Final = frozenset({"rflags", "eflags", "flags", "nzcv"})


def inputs(insn: Any) -> tuple[str, ...]:
    """Return what an instruction computes from: registers, and "memory".

    Flags are left out, and registers that only say where the memory is.
    """
    reads, _ = insn.regs_access()
    names = {insn.reg_name(register): None for register in reads}
    is_read = False
    for operand in insn.operands:
        if operand.type == CS_OP_MEM:
            is_read |= bool(operand.access & CS_AC_READ)
            for register in (operand.mem.base, operand.mem.index, _segment(operand)):
                names.pop(insn.reg_name(register) if register else "", None)
    for operand in insn.operands:
        if operand.type == CS_OP_REG and operand.access & CS_AC_READ:
            names[insn.reg_name(operand.reg)] = None
    found = [name for name in names if name not in _FLAGS]
    return (*found, "memory") if is_read else tuple(found)


def _segment(operand: Any) -> int:
    """Return the segment register of a memory operand, 0 where ISAs have none."""
    return getattr(operand.mem, "segment", 0)
