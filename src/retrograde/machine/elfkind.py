"""For which machine a file of symbols is: before anything is started with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from retrograde.errors import UsageError
from retrograde.recording.folder import open_regular

_HEAD: Final = 20
_HINT: Final = "Give an ELF file, such as vmlinux or a user program with its symbols."

# e_machine of the gABI, by QEMU target.
_MACHINES: Final = {
    "x86_64": {3, 62},
    "i386": {3},
    "aarch64": {40, 183},
    "arm": {40},
    "riscv64": {243},
    "riscv32": {243},
    "ppc64": {20, 21},
    "ppc": {20},
    "s390x": {22},
    "mips": {8},
    "mipsel": {8},
    "mips64": {8},
    "mips64el": {8},
    "m68k": {4},
    "sparc": {2, 18},
    "sparc64": {2, 18, 43},
    "loongarch64": {258},
    "or1k": {92},
    "microblaze": {189},
    "microblazeel": {189},
    "xtensa": {94},
    "xtensaeb": {94},
    "alpha": {0x9026},
    "hppa": {15},
}
_NAMES: Final = {
    2: "SPARC",
    3: "32-bit x86",
    4: "m68k",
    8: "MIPS",
    15: "PA-RISC",
    18: "SPARC",
    20: "Power",
    21: "64-bit Power",
    22: "s390",
    40: "Arm",
    43: "64-bit SPARC",
    62: "x86_64",
    92: "OpenRISC",
    94: "Xtensa",
    183: "AArch64",
    189: "MicroBlaze",
    243: "RISC-V",
    258: "LoongArch",
    0x9026: "Alpha",
}


def is_elf(path: Path) -> bool:
    """Whether a file is an ELF file; raises UsageError when it cannot be read."""
    return _head(path)[:4] == b"\x7fELF"


def require_program_for(path: Path, target: str) -> None:
    """Raise UsageError unless `path` is an ELF file for machines of a QEMU target."""
    head = _head(path)
    if len(head) < _HEAD or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        raise UsageError(f"{path} is no ELF file.", _HINT)
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if machine not in _MACHINES.get(target, {machine}):
        name = _NAMES.get(machine, f"machine number {machine}")
        raise UsageError(f"{path} is a program for {name}, and the guest is {target}.", _HINT)


def _head(path: Path) -> bytes:
    try:
        with open_regular(path, follow=True) as file:
            return file.read(_HEAD)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", _HINT) from error
