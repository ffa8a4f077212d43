"""A guest for boards with a Cortex-M3 at whose RAM only QEMU looks; made here, byte by byte."""

from pathlib import Path

STACK, COUNT, SUM, TICKED = 0x20001000, 0x20000100, 0x20000104, 0x20000108
"""Addresses: the top of the stack, and where `work` and `tick` store."""

WORK, TICK = 0x76, 0x70
"""Addresses of the function called for each round and of the SysTick handler."""

UARTS = {"stm32vldiscovery": 0x40013804, "lm3s6965evb": 0x4000C000}
"""The data register of the first serial port, by board."""

UNLOADABLE = "lm3s6965evb"
"""Loading its SD card fails an assertion (hw/sd/sd.c), at any position."""

ROUNDS = 0x2000
"""How often `work` is called: a letter is printed every 256 times, then the board resets."""

_CODE = """
    5ff8 0800   ldr r0, [0x40]      the serial port
    1049 114d   ldr r1, =COUNT; ldr r5, =SYST_CSR
    114e 6e60   ldr r6, =20000; str r6, [r5, #4]
    0026 ae60   movs r6, #0; str r6, [r5, #8]
    0726 2e60   movs r6, #7; str r6, [r5]
    0022        movs r2, #0
    0132        1: adds r2, #1
    00f0 0bf8   bl work
    1306 fad1   lsls r3, r2, #24; bne 1b
    6123 0360   movs r3, #'a'; str r3, [r0]
    530b f6d0   lsrs r3, r2, #13; beq 1b
    08e0 00bf   b reset; nop
    8a60 7047   tick: str r2, [r1, #8]; bx lr
    fee7        fault: b fault
    0a60 4b68   work: str r2, [r1]; ldr r3, [r1, #4]
    9b18 4b60   adds r3, r3, r2; str r3, [r1, #4]
    7047        bx lr
    054c 064e   reset: ldr r4, =AIRCR; ldr r6, =0x05fa0004
    2660 fee7   str r6, [r4]; b .
    00bf 00bf   padding
"""


def write_cortex_m(path: Path, board: str) -> list[str]:
    """Write the guest for `board` to `path`; return QEMU's arguments, which take -no-reboot."""
    fault = 0x75
    vectors = [STACK, 0x45, *[fault] * 13, TICK | 1, UARTS[board]]
    words = (line[4:].split("   ")[0] for line in _CODE.strip("\n").splitlines())
    literals = [COUNT, 0xE000E010, 20000, 0xE000ED0C, 0x05FA0004]
    path.write_bytes(_words(vectors) + bytes.fromhex("".join(words)) + _words(literals))
    return ["-M", board, "-nographic", "-no-reboot", "-kernel", str(path)]


def _words(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)
