"""The table of targets: program counters and byte orders QEMU leaves to its clients."""

from __future__ import annotations

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.machine.isa import isa_for, known_targets


def x86(rip: int, cs: int = 0, cr0: int = 0, eflags: int = 2) -> dict[str, int]:
    return {"rip": rip, "eip": rip, "cs": cs, "cr0": cr0, "eflags": eflags}


@pytest.mark.parametrize("target", ["x86_64", "i386"])
@pytest.mark.parametrize(
    ("registers", "address"),
    [
        (x86(0xFFF0, cs=0xF000), 0xFFFFFFF0),
        (x86(0xE05B, cs=0xF000), 0xFE05B),
        (x86(0x7C00), 0x7C00),
        (x86(0xEA301, cs=8, cr0=0x11), 0xEA301),
        (x86(0x10, cs=0x1000, cr0=1, eflags=1 << 17 | 2), 0x10010),
    ],
    ids=["reset", "real", "boot sector", "protected", "virtual-8086"],
)
def test_x86_linear_pc(target: str, registers: dict[str, int], address: int) -> None:
    assert isa_for(target).linear_pc(registers) == address


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
