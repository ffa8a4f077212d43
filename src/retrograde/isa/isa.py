"""What QEMU's gdbstub does not say of itself: one row per QEMU target.

Registers and their sizes come from the target description QEMU serves (`targetdesc`).
Left for this table are the architecture's name in gdb, which register is the program
counter and which the stack pointer, the byte order of register values on the wire, and
the registers of targets that serve no description (those whose target/*/cpu.c in QEMU
sets no gdb_core_xml_file; the order is that of their gdbstub.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.errors import EnvironmentLacks

ByteOrder = Literal["little", "big"]

X86 = frozenset({"x86_64", "i386"})
"""Targets with PC boards."""

PUSHES_NOTHING = frozenset(
    {
        *("aarch64", "arm", "riscv64", "riscv32", "ppc64", "ppc", "loongarch64", "or1k"),
        *("mips", "mipsel", "mips64", "mips64el", "sparc", "sparc64", "alpha", "hppa"),
        *("microblaze", "microblazeel", "xtensa", "xtensaeb"),
    }
)
"""Targets whose interrupts and exceptions leave memory alone, but for M-profile Arm.

In QEMU's target/*/ what takes one stores nothing but there (arm/tcg/m_helper.c).
"""

LONG_MODE: Final = 1 << 10
"""Bit of efer (LMA) that is set in 64-bit mode and in the 32-bit code under it."""


@dataclass(frozen=True, slots=True)
class Isa:
    """One QEMU target as seen over the gdb protocol."""

    target: str
    """QEMU's name: what follows ``qemu-system-``."""
    gdb_architecture: str
    """What gdb's ``set architecture`` takes."""
    byte_order: ByteOrder
    """Byte order of register values on the wire at reset."""
    pc: str
    sp: str
    bare: tuple[tuple[str, int], ...] = ()
    """Names and bits of the registers in 'g' where QEMU serves no description."""
    order_bit: int | None = None
    """Bit of the msr, decoded as big-endian, that is set when the wire is little-endian."""

    def order_at(self, registers: Mapping[str, int]) -> ByteOrder:
        """Return the byte order of the packet that `registers`, decoded as `byte_order`, hold.

        PowerPC's stub swaps every register while MSR.LE is set (ppc_maybe_bswap_register
        in QEMU's target/ppc/gdbstub.c), and a little-endian kernel starts under big-endian
        firmware, so this must be asked anew at every stop. A swapped MSR has LE, its lowest
        bit, at the bottom of the first byte, where an unswapped MSR has a reserved zero.
        """
        if self.order_bit is not None and registers["msr"] >> self.order_bit & 1:
            return "little"
        return self.byte_order

    def linear_pc(self, registers: Mapping[str, int]) -> int | None:
        """Return the address of the next instruction in the current address space.

        None when the registers do not tell. QEMU's rip and eip are offsets in the code
        segment and its description leaves cs_base out (commented in
        gdb-xml/i386-64bit.xml). In long mode the base is 0 (in its 32-bit code it is taken
        for 0, as all current systems have it); elsewhere CS may have a base loaded in
        another mode, as firmware has it, and the machine must be asked (machine.segment).
        """
        pc = registers[self.pc]
        if self.target == "hppa":
            return pc & ~3  # the low two bits hold the privilege level
        if self.target in X86 and not registers["efer"] & LONG_MODE:
            return None
        return pc


def isa_for(target: str) -> Isa:
    """Return the row of a QEMU target such as ``x86_64``.

    Raises EnvironmentLacks for a target not in the table.
    """
    try:
        return _ROWS[target]
    except KeyError:
        raise EnvironmentLacks(
            f"retrograde knows no registers of the QEMU target {target!r}.",
            f"Use one of {', '.join(sorted(_ROWS))}.",
        ) from None


def known_targets() -> tuple[str, ...]:
    """Return the names of all targets in the table, sorted."""
    return tuple(sorted(_ROWS))


def _numbered(prefix: str, count: int, bits: int, first: int = 0) -> tuple[tuple[str, int], ...]:
    return tuple((f"{prefix}{number}", bits) for number in range(first, first + count))


def _named(names: str, bits: int) -> tuple[tuple[str, int], ...]:
    return tuple((name, bits) for name in names.split())


def _mips(bits: int) -> tuple[tuple[str, int], ...]:
    return (
        *_numbered("r", 32, bits),
        *_named("status lo hi badvaddr cause pc", bits),
        *_numbered("f", 32, bits),
        *_named("fcsr fir fp", bits),
    )


def _sparc_windows(bits: int) -> tuple[tuple[str, int], ...]:
    return tuple(register for bank in "goli" for register in _numbered(bank, 8, bits))


_SPARC = (
    *_sparc_windows(32),
    *_numbered("f", 32, 32),
    *_named("y psr wim tbr pc npc fsr csr", 32),
)
_SPARC64 = (
    *_sparc_windows(64),
    *_numbered("f", 32, 32),
    *((f"f{number}", 64) for number in range(32, 64, 2)),
    *_named("pc npc state fsr fprs y", 64),
)
_ALPHA = (
    *_numbered("r", 32, 64),
    *_numbered("f", 31, 64),
    *_named("fpcr pc unassigned unique", 64),
)
_HPPA = (
    *_named("psw", 32),
    *_numbered("r", 31, 32, first=1),
    *_named("sar pcoqh pcsqh pcoqt pcsqt eiem iir isr ior ipsw goto", 32),
    *_named("sr4 sr0 sr1 sr2 sr3 sr5 sr6 sr7 cr0 cr8 cr9 ccr cr12 cr13", 32),
    *_numbered("cr", 7, 32, first=24),
    *((f"fr{number // 2}{'R' if number % 2 else ''}", 32) for number in range(64)),
)
_OR1K = (*_numbered("r", 32, 32), *_named("ppc npc sr", 32))

_ROWS = {
    row.target: row
    for row in (
        Isa("x86_64", "i386:x86-64", "little", "rip", "rsp"),
        Isa("i386", "i386", "little", "eip", "esp"),
        Isa("aarch64", "aarch64", "little", "pc", "sp"),
        Isa("arm", "arm", "little", "pc", "sp"),
        Isa("riscv64", "riscv:rv64", "little", "pc", "sp"),
        Isa("riscv32", "riscv:rv32", "little", "pc", "sp"),
        Isa("ppc64", "powerpc:common64", "big", "pc", "r1", order_bit=56),
        Isa("ppc", "powerpc:common", "big", "pc", "r1", order_bit=24),
        Isa("s390x", "s390:64-bit", "big", "pswa", "r15"),
        Isa("mips", "mips", "big", "pc", "r29", bare=_mips(32)),
        Isa("mipsel", "mips", "little", "pc", "r29", bare=_mips(32)),
        Isa("mips64", "mips:isa64r2", "big", "pc", "r29", bare=_mips(64)),
        Isa("mips64el", "mips:isa64r2", "little", "pc", "r29", bare=_mips(64)),
        Isa("m68k", "m68k", "big", "pc", "sp"),
        Isa("sparc", "sparc", "big", "pc", "o6", bare=_SPARC),
        Isa("sparc64", "sparc:v9", "big", "pc", "o6", bare=_SPARC64),
        Isa("loongarch64", "Loongarch64", "little", "pc", "r3"),
        Isa("or1k", "or1k", "big", "npc", "r1", bare=_OR1K),
        Isa("microblaze", "MicroBlaze", "big", "rpc", "r1"),
        Isa("microblazeel", "MicroBlaze", "little", "rpc", "r1"),
        Isa("xtensa", "xtensa", "little", "pc", "a1"),
        Isa("xtensaeb", "xtensa", "big", "pc", "a1"),
        Isa("alpha", "alpha", "little", "pc", "r30", bare=_ALPHA),
        Isa("hppa", "hppa1.0", "big", "pcoqh", "r30", bare=_HPPA),
    )
}
