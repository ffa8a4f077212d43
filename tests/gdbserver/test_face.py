"""A 64-bit machine's registers as an i386 and an 8086 have them."""

from __future__ import annotations

import pytest

from retrograde.errors import UsageError
from retrograde.gdbserver.face import face_of, mode_of, modes_of
from retrograde.isa.isa import isa_for
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.timeline.machineview import MachineView

WIDE = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip")
CONTROL = ("cr0", "cr2", "cr3", "cr4", "efer")
NARROW = ("eflags", "cs", "ss", "ds", "es", "fs", "gs", "mxcsr")
FLOATING = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")

LAYOUT = RegisterLayout.bare(
    (
        *((name, 64) for name in (*WIDE, *CONTROL)),
        *((name, 32) for name in (*NARROW, *FLOATING)),
        *((f"st{number}", 80) for number in range(8)),
        *((f"xmm{number}", 128) for number in range(16)),
    )
)
VIEW = MachineView(isa_for("x86_64"), LAYOUT, LAYOUT, ())
VALUES = {one.name: 0x1_0000_0000 + number for number, one in enumerate(LAYOUT.registers)}
PACKET = b"".join(
    (VALUES[one.name] & (1 << one.bits) - 1).to_bytes(one.size, "little").hex().encode()
    for one in LAYOUT.registers
)


@pytest.mark.parametrize("mode", [16, 32])
def test_the_low_halves_are_shown(mode):
    face = face_of(VIEW, mode)
    seen = face.view.decode(face.packet(PACKET, 0xFFFF0, VIEW))
    assert seen["ebx"] == VALUES["rbx"] & 0xFFFFFFFF
    assert seen["esp"] == VALUES["rsp"] & 0xFFFFFFFF
    assert seen["st3"] == VALUES["st3"]
    assert seen["xmm7"] == VALUES["xmm7"]
    assert seen["cr4"] == VALUES["cr4"] & 0xFFFFFFFF
    offset = VALUES["rip"] & 0xFFFFFFFF
    assert seen["eip"] == (0xFFFF0 if mode == 16 else offset)
    assert mode == 32 or seen["ip"] == offset


def test_what_is_not_at_hand_stays_so():
    face, rax = face_of(VIEW, 32), LAYOUT.register("rax")
    packet = b"x" * 16 + PACKET[2 * rax.size :]
    seen = face.view.decode(face.packet(packet, 0, VIEW))
    assert "eax" not in seen
    assert seen["ebx"] == VALUES["rbx"] & 0xFFFFFFFF


def test_the_widest_mode_is_qemus_own():
    assert face_of(VIEW, 64).packet(PACKET, 0, VIEW) == PACKET
    assert modes_of(isa_for("i386")) == (16, 32)
    assert modes_of(isa_for("riscv64")) == ()
    with pytest.raises(UsageError):
        face_of(MachineView(isa_for("arm"), LAYOUT, LAYOUT, ()), 32)


def test_the_mode_of_the_cpu():
    assert mode_of({"efer": 0, "cr0": 0x60000010}) == 16
    assert mode_of({"efer": 0, "cr0": 0x11}) == 32
    assert mode_of({"efer": 0x500, "cr0": 0x80000011}) == 64
