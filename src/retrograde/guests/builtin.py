"""The built-in guests: images of a few KB, our own assembly, in `guests/` with their source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrograde.errors import UsageError
from retrograde.guests.guest import Guest, Pattern

_IMAGES = Path(__file__).parent / "tiny"


@dataclass(frozen=True, slots=True)
class _Machine:
    """How a built-in guest is booted, and where it leaves its pattern.

    `images` begins the names of the image files where these are not the target's own.
    """

    arguments: tuple[str, ...]
    pattern: int
    byteorder: Literal["little", "big"] = "little"
    image_option: str = "-kernel"
    suffix: str = "elf"
    images: str = ""


# TCG offers none of these mitigations, and pseries refuses or warns about each.
_PSERIES = "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"

_MACHINES = {
    "x86_64": _Machine(("-M", "pc", "-m", "32"), 0x200000),
    "aarch64": _Machine(("-M", "virt", "-cpu", "cortex-a57", "-m", "32"), 0x40200000),
    "arm": _Machine(("-M", "virt", "-cpu", "cortex-a15", "-m", "32"), 0x40200000),
    "i386": _Machine(("-M", "pc", "-m", "32"), 0x200000),
    "riscv64": _Machine(("-M", "virt", "-bios", "none", "-m", "32"), 0x80200000),
    "riscv32": _Machine(("-M", "virt", "-bios", "none", "-m", "32"), 0x80200000),
    "ppc64": _Machine(
        ("-M", _PSERIES, "-m", "256", "-vga", "none"),
        0x200000,
        byteorder="big",
        image_option="-bios",
        suffix="bin",
    ),
    "s390x": _Machine(("-M", "s390-ccw-virtio", "-m", "32"), 0x200000, byteorder="big"),
    "mipsel": _Machine(("-M", "malta", "-m", "32"), 0x200000),
    "mips": _Machine(("-M", "malta", "-m", "32"), 0x200000, byteorder="big"),
    "mips64el": _Machine(("-M", "malta", "-cpu", "5KEf", "-m", "32"), 0x200000),
    "mips64": _Machine(("-M", "malta", "-cpu", "5KEf", "-m", "32"), 0x200000, byteorder="big"),
    "m68k": _Machine(("-M", "virt", "-m", "32"), 0x200000, byteorder="big"),
}

_OTHER_BOARDS = {
    ("x86_64", "q35"): _Machine(("-M", "q35", "-m", "32"), 0x200000),
    ("x86_64", "microvm"): _Machine(("-M", "microvm", "-m", "32"), 0x200000, images="i386"),
    ("i386", "q35"): _Machine(("-M", "q35", "-m", "32"), 0x200000),
    ("i386", "microvm"): _Machine(("-M", "microvm", "-m", "32"), 0x200000),
    ("ppc64", "pseries-le"): _Machine(
        ("-M", _PSERIES, "-m", "256", "-vga", "none"),
        0x200000,
        image_option="-bios",
        suffix="bin",
        images="ppc64le",
    ),
}
"""Boards on which built-in guests run beside their target's first, by target and name.

The name is the machine type's; "pseries-le" is a pseries whose guest is little-endian.
"""

_DESCRIPTIONS = {
    "tiny": "console, timer interrupts, 1 MB of stores and idling",
    "pagefault": "page faults on every kind of access, each mapped and retried",
    "syscall": "ring 3 and back by syscall/sysret, int 0x80 and #GP, with timer ticks",
    "rep": "string instructions that timer interrupts cut in the middle",
    "smc": "self-modifying code, near, far, across pages and through an alias",
    "exceptions": "exceptions at block ends, single-step traps, a debug register",
    "nested": "timer and serial interrupts nested four deep",
    "hot": "three addresses reached a million times each",
    "stacks": "preempted threads, recursion and interrupt stacks",
    "moves": "a value moved through registers, memory and stacks, with timer ticks",
    "aliases": "one page of code at three addresses, with timer ticks",
    "unaligned": "unaligned, page-crossing and aliased accesses of every size",
    "disks": "eight requests at a time on a virtio disk and one on a CD drive, for ever",
    "apic": "timer interrupts of the local APIC",
    "faults": "exceptions of most kinds, from two levels where there are, with timer ticks",
    "frames": "ring 3 and virtual-8086 mode, left by faults, software and timer interrupts",
    "wide": "accesses of 1 to 64 bytes, at once or in parts, around a page border",
}

_NEEDS = {
    ("x86_64", "wide"): ("-cpu", "max"),
    ("x86_64", "disks"): (
        *("-drive", "if=virtio,format=raw,readonly=on,file={0}", "-cdrom", "{0}"),
    ),
}
"""What a guest needs besides its machine, by target and name; {0} is its own image.

The CD drive is on an IDE controller that only `pc` has.
"""


def builtin_targets() -> tuple[str, ...]:
    """Return the targets that have built-in guests."""
    return tuple(_MACHINES)


def builtin_boards(target: str) -> tuple[str, ...]:
    """Return the boards of a target that have built-in guests, its first one first."""
    first = (_board(_MACHINES[target]),) if target in _MACHINES else ()
    return first + tuple(board for of, board in _OTHER_BOARDS if of == target)


def builtin_names(target: str = "x86_64", board: str = "") -> tuple[str, ...]:
    """Return the names of the built-in guests, "tiny" first; empty if there is none.

    They are those of `target`'s first board unless another `board` is named.
    """
    machine = _machine(target, board)
    if machine is None:
        return ()
    names = tuple(name for name in _DESCRIPTIONS if _image(name, target, machine).is_file())
    return tuple(name for name in names if name != "disks" or _board(machine) == "pc")


def builtin_guest(name: str = "tiny", target: str = "x86_64", board: str = "") -> Guest:
    """Return a built-in guest; each runs for some 10 M instructions and powers off.

    `board` is a machine type, the target's first one by default. Raises UsageError where
    there is no such guest.
    """
    machine = _machine(target, board)
    if machine is None or name not in builtin_names(target, board):
        known = ", ".join(builtin_names(target, board))
        raise UsageError(
            f"There is no built-in guest {name} for {f'{target} {board}'.rstrip()}",
            f"Choose one of: {known}" if known else f"Targets: {', '.join(_MACHINES)}",
        )
    image = _image(name, target, machine)
    needs = [word.format(image) for word in _NEEDS.get((target, name), ())]
    return Guest(
        name=name,
        target=target,
        description=_DESCRIPTIONS[name],
        qemu_args=[*machine.arguments, *needs, machine.image_option, str(image)],
        files=(image,),
        start=f"{name.upper()}-START",
        done=f"{name.upper()}-DONE",
        pattern=Pattern(machine.pattern, machine.byteorder),
    )


def processors_guest(vcpus: int, board: str = "pc") -> Guest:
    """Return the guest for up to 16 processors of x86_64; it runs for 10 M instructions or more.

    It is none of `builtin_names`, whose guests run everywhere.
    """
    image = _IMAGES / "x86_64-smp.elf"
    return Guest(
        name="smp",
        target="x86_64",
        description="locks, interrupts, NMIs, code and pages changed between processors",
        qemu_args=["-M", board, "-m", "32", "-smp", str(vcpus), "-kernel", str(image)],
        files=(image,),
        start="SMP-START",
        done="SMP-DONE",
        pattern=Pattern(0x200000, "little"),
    )


def _machine(target: str, board: str) -> _Machine | None:
    first = _MACHINES.get(target)
    if first is not None and board in ("", _board(first)):
        return first
    return _OTHER_BOARDS.get((target, board))


def _board(machine: _Machine) -> str:
    return machine.arguments[machine.arguments.index("-M") + 1].partition(",")[0]


def _image(name: str, target: str, machine: _Machine) -> Path:
    return _IMAGES / f"{machine.images or target}-{name}.{machine.suffix}"
