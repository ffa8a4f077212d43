"""MIPS's counter, which a loaded machine has forgotten to watch.

QEMU before 11 leaves the timer behind Count and Compare out of snapshots, and the branch
whose delay slot is next (target/mips/system/machine.c). The first can be put back: when
Cause.DC, which stops the counter, is cleared, QEMU arms the timer from Count and Compare
(cpu_mips_store_cause and cpu_mips_start_count in target/mips/tcg/system). The second
cannot, so that such positions must be known.
"""

from __future__ import annotations

from retrograde.errors import QemuRefused
from retrograde.isa.isa import Isa
from retrograde.machine.gdb.remote import GdbRemote

DC = 1 << 27
"""Cause: disable counting (MIPS32 Privileged Resource Architecture, release 2)."""

_REGIMM_BRANCHES = frozenset({0, 1, 2, 3, 16, 17, 18, 19})
_BRANCHES = frozenset({2, 3, 4, 5, 6, 7, 20, 21, 22, 23})
_JUMP_REGISTER = frozenset({8, 9})


async def restart_counter(gdb: GdbRemote, isa: Isa) -> None:
    """Stop and start the counter of a machine that was just loaded."""
    number = [name for name, _bits in isa.bare].index("cause")
    held = bytes.fromhex((await gdb.read_register(number)).decode())
    cause = int.from_bytes(held, isa.byte_order)
    for value in (cause | DC, cause):
        await gdb.write_register(number, value.to_bytes(len(held), isa.byte_order))


async def follows_branch(gdb: GdbRemote, isa: Isa) -> bool:
    """Whether the next instruction stands in a delay slot: behind a branch or jump."""
    number = [name for name, _bits in isa.bare].index("pc")
    pc = int.from_bytes(bytes.fromhex((await gdb.read_register(number)).decode()), isa.byte_order)
    try:
        before = await gdb.read_memory(pc - 4, 4)
    except QemuRefused:  # nothing is mapped there
        return False
    return is_branch(int.from_bytes(before, isa.byte_order))


def is_branch(word: int) -> bool:
    """Whether an instruction of MIPS32 or MIPS64 has a delay slot. Pure."""
    operation, target, function = word >> 26, word >> 16 & 31, word & 63
    match operation:
        case 0:
            return function in _JUMP_REGISTER
        case 1:
            return target in _REGIMM_BRANCHES
        case 17:
            return word >> 21 & 31 == 8  # BC1
        case _:
            return operation in _BRANCHES
