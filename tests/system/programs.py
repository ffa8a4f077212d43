"""Guests of a few dozen bytes, in place of the PC's firmware: they run from reset.

A booted system takes millions of instructions to its first character; these take ten.
Each is 16-bit code at F000:0000, reached from the reset vector by a far jump. The
serial port is a 16550 at 0x3f8 (line status at 0x3fd, bit 0: a byte has come).
"""

from __future__ import annotations

from pathlib import Path

_SIZE = 0x10000
_RESET = 0xFFF0

_POWER_OFF = bytes.fromhex(
    "66b8400b0080 baf80c 66ef"  # PIIX4 power management, at 00:01.3: base address
    "66b801060000 bafc0c 66ef"  # 0x600
    "66b8800b0080 baf80c 66ef"  # and its enable bit
    "b001         bafc0c ee  "
    "b80020       ba0406 ef  "  # PM1a control: sleep now, type 0 is soft off
    "f4           ebfd       "  # wait for it
)

# dx = 0x3f8, al = '.'; out dx, al; cx = 0x4000; loop to itself; back to the out
_TICKER = bytes.fromhex("baf803 b02e ee b90040 e2fe ebf8")

# Switch the FIFO on and write '>'. Then, until a byte has come, wait at 0x3fd; read it,
# write it; stop after 4 (Ctrl-D).
_ECHO = (
    bytes.fromhex("bafa03 b001 ee b2f8 b03e ee b2fd")
    + bytes.fromhex("ec a801 74fb b2f8 ec ee 3c04 7404 b2fd ebef")
    + _POWER_OFF
)

# isa-debug-exit: the value v ends QEMU with status 2 v + 1.
_EXIT = bytes.fromhex("baf803 b021 ee b005 e6f4 f4 ebfd")

# Interrupts off, print !; three times 64 K rounds; and the same end.
_COMPUTE = bytes.fromhex("fa baf803 b021 ee bb0300 b9ffff e2fe 4b 75f8 b005 e6f4 f4 ebfd")
COMPUTED = 196_622
"""Instructions of the guest `compute`, with the one that ends it."""

# The keyboard controller's command 0xfe pulses the processor's reset line.
_RESET_PC = bytes.fromhex("b0fe e664 f4 ebfd")

# Interrupts off, print !, count in CMOS 0x50; after two times power off, else load an empty table
# of vectors and run into ud2.
_TRIPLE_FAULT = (
    bytes.fromhex("fa baf803 b021 ee b050 e670 e471 40 88c3 b050 e670 88d8 e671 80fb03 740e")
    + bytes.fromhex("2e0f011e2500 0f0b 000000000000")
    + _POWER_OFF
)
UD2 = 0xF0023
"""Its linear address in the guest `triple_fault`."""


def ticker(folder: Path) -> list[str]:
    """A guest that prints a dot every 16 K instructions and never ends."""
    return _arguments(folder / "ticker.bin", _TICKER)


def busy(folder: Path) -> list[str]:
    """A guest for aarch64 that jumps to itself for ever; no timer of the board is ever due."""
    image = folder / "busy.bin"
    image.write_bytes(bytes.fromhex("00000014"))
    return ["-M", "virt", "-cpu", "cortex-a57", "-m", "16", "-net", "none", "-bios", str(image)]


def echo(folder: Path) -> list[str]:
    """A guest that prints ">", writes back what it reads and powers off after Ctrl-D.

    Give it at most 16 bytes at a time (see cli.terminal).
    """
    return _arguments(folder / "echo.bin", _ECHO)


def hello(folder: Path, text: bytes = b"hello\n") -> list[str]:
    """A guest that prints `text` and powers off."""
    code = b"\xba\xf8\x03" + b"".join(b"\xb0%c\xee" % byte for byte in text)
    return _arguments(folder / "hello.bin", code + _POWER_OFF)


def reset(folder: Path) -> list[str]:
    """A guest that resets the machine at once."""
    return _arguments(folder / "reset.bin", _RESET_PC)


def triple_fault(folder: Path) -> list[str]:
    """A guest that prints "!" and resets by a triple fault; the third time it powers off."""
    return _arguments(folder / "triple.bin", _TRIPLE_FAULT)


def exit_11(folder: Path) -> list[str]:
    """A guest that prints "!" and ends QEMU with status 11."""
    return [*_arguments(folder / "exit.bin", _EXIT), "-device", "isa-debug-exit,iobase=0xf4"]


def compute(folder: Path) -> list[str]:
    """A guest that prints "!", does nothing but compute, and ends QEMU with status 11."""
    return [*_arguments(folder / "exit.bin", _COMPUTE), "-device", "isa-debug-exit,iobase=0xf4"]


def _arguments(image: Path, code: bytes) -> list[str]:
    jump = b"\xea\x00\x00\x00\xf0"
    image.write_bytes(code.ljust(_RESET, b"\xf4") + jump.ljust(_SIZE - _RESET, b"\xf4"))
    return ["-M", "pc", "-m", "2", "-vga", "none", "-bios", str(image)]
