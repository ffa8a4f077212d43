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
    """How a target's built-in guests are booted, and where they leave their pattern."""

    arguments: tuple[str, ...]
    pattern: int
    byteorder: Literal["little", "big"] = "little"
    image_option: str = "-kernel"
    suffix: str = "elf"


_MACHINES = {
    "x86_64": _Machine(("-M", "pc", "-m", "32"), 0x200000),
    "aarch64": _Machine(("-M", "virt", "-cpu", "cortex-a57", "-m", "32"), 0x40200000),
    "arm": _Machine(("-M", "virt", "-cpu", "cortex-a15", "-m", "32"), 0x40200000),
    "riscv64": _Machine(("-M", "virt", "-bios", "none", "-m", "32"), 0x80200000),
    # TCG offers none of these mitigations, and pseries refuses or warns about each.
    "ppc64": _Machine(
        (
            *("-M", "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"),
            *("-m", "256", "-vga", "none"),
        ),
        0x200000,
        byteorder="big",
        image_option="-bios",
        suffix="bin",
    ),
    "s390x": _Machine(("-M", "s390-ccw-virtio", "-m", "32"), 0x200000, byteorder="big"),
    "mipsel": _Machine(("-M", "malta", "-m", "32"), 0x200000),
    "m68k": _Machine(("-M", "virt", "-m", "32"), 0x200000, byteorder="big"),
}

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
    "unaligned": "unaligned, page-crossing and aliased accesses of every size",
}


def builtin_targets() -> tuple[str, ...]:
    """Return the targets that have built-in guests."""
    return tuple(_MACHINES)


def builtin_names(target: str = "x86_64") -> tuple[str, ...]:
    """Return the names of a target's built-in guests, "tiny" first; empty if it has none."""
    machine = _MACHINES.get(target)
    if machine is None:
        return ()
    return tuple(name for name in _DESCRIPTIONS if _image(name, target, machine).is_file())


def builtin_guest(name: str = "tiny", target: str = "x86_64") -> Guest:
    """Return a built-in guest; each runs for some 10 M instructions and powers off."""
    if name not in builtin_names(target):
        known = ", ".join(builtin_names(target))
        raise UsageError(
            f"There is no built-in guest {name} for {target}",
            f"Choose one of: {known}" if known else f"Targets: {', '.join(_MACHINES)}",
        )
    machine = _MACHINES[target]
    image = _image(name, target, machine)
    return Guest(
        name=name,
        target=target,
        description=_DESCRIPTIONS[name],
        qemu_args=[*machine.arguments, machine.image_option, str(image)],
        files=(image,),
        start=f"{name.upper()}-START",
        done=f"{name.upper()}-DONE",
        pattern=Pattern(machine.pattern, machine.byteorder),
    )


def _image(name: str, target: str, machine: _Machine) -> Path:
    return _IMAGES / f"{target}-{name}.{machine.suffix}"
