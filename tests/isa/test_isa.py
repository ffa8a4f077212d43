"""The table of targets: program counters and byte orders QEMU leaves to its clients."""

from __future__ import annotations

import pytest

from retrograde.errors import EnvironmentLacks, InternalError
from retrograde.isa.isa import LONG_MODE, isa_for, known_targets
from retrograde.machine.segment import code_base, linear_pc

REAL_MODE = """\
RIP=000000000000cff3 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0030 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
CS =0028 000f0000 0000ffff 00009b00 DPL=0 CS16 [-RA]
"""
"""What QEMU 10.0 answers in SeaBIOS between leaving protected mode and its far jump."""


@pytest.mark.parametrize("target", ["x86_64", "i386"])
def test_registers_tell_the_linear_pc_in_long_mode_only(target: str) -> None:
    isa = isa_for(target)
    registers = {"rip": 0xCFF3, "eip": 0xCFF3, "efer": 0}
    assert isa.linear_pc(registers) is None
    assert isa.linear_pc(registers | {"efer": LONG_MODE}) == 0xCFF3
    assert linear_pc(isa, registers, REAL_MODE) == 0xFCFF3


def test_a_linear_pc_wraps_where_the_address_space_ends() -> None:
    base = REAL_MODE.replace("000f0000", "ffff0000")
    assert linear_pc(isa_for("x86_64"), {"rip": 0x1FFF0}, base) == 0xFFF0


def test_an_answer_without_a_code_segment() -> None:
    with pytest.raises(InternalError, match="code segment"):
        code_base("unknown command: 'info registers'")


def test_pc_is_linear_elsewhere() -> None:
    assert isa_for("aarch64").linear_pc({"pc": 0x4000_0000}) == 0x4000_0000
    assert isa_for("hppa").linear_pc({"pcoqh": 0x1003}) == 0x1000


@pytest.mark.parametrize(("target", "size"), [("ppc64", 8), ("ppc", 4)])
@pytest.mark.parametrize("msr", [0x9033, 0x8000_0000_0000_9033, 0x8000_0000_0280_F033])
@pytest.mark.parametrize("little", [False, True])
def test_powerpc_order_follows_the_msr(target: str, size: int, msr: int, little: bool) -> None:
    isa = isa_for(target)
    msr = (msr & ~1 | little) & (1 << 8 * size) - 1
    wire = msr.to_bytes(size, "little" if little else "big")
    decoded = {"msr": int.from_bytes(wire, isa.byte_order)}
    assert isa.order_at(decoded) == ("little" if little else "big")


def test_other_orders_are_fixed() -> None:
    assert isa_for("s390x").order_at({}) == "big"
    assert isa_for("mipsel").order_at({}) == "little"


# Bytes in the 'g' packet by the registers and sizes of QEMU 10.0's target/*/gdbstub.c.
@pytest.mark.parametrize(
    ("target", "count", "size"),
    [
        ("mips", 73, 73 * 4),
        ("mips64el", 73, 73 * 8),
        ("sparc", 72, 72 * 4),
        ("sparc64", 86, 32 * 8 + 32 * 4 + 16 * 8 + 6 * 8),
        ("alpha", 67, 67 * 8),
        ("hppa", 128, 128 * 4),
        ("or1k", 35, 35 * 4),
    ],
)
def test_bare_registers_fill_the_packet(target: str, count: int, size: int) -> None:
    bare = isa_for(target).bare
    assert len(bare) == count
    assert sum(bits for _, bits in bare) == size * 8
    assert len({name for name, _ in bare}) == count


@pytest.mark.parametrize("target", [t for t in known_targets() if isa_for(t).bare])
def test_pc_and_sp_are_among_bare_registers(target: str) -> None:
    isa = isa_for(target)
    assert {isa.pc, isa.sp} <= {name for name, _ in isa.bare}


# Numbers of the pc in QEMU 10.0's target/*/gdbstub.c.
@pytest.mark.parametrize(
    ("target", "number"),
    [("mips", 37), ("sparc", 68), ("sparc64", 80), ("alpha", 64), ("or1k", 33), ("hppa", 33)],
)
def test_bare_pc_is_where_qemu_puts_it(target: str, number: int) -> None:
    isa = isa_for(target)
    assert [name for name, _ in isa.bare].index(isa.pc) == number


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(EnvironmentLacks, match="'vax'"):
        isa_for("vax")
