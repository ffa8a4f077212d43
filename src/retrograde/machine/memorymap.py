"""Where guest RAM lies in physical memory, as QEMU tells."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from retrograde.commandline.command import RAM_ID
from retrograde.isa.isa import X86, Isa

Human = Callable[[str], Awaitable[str]]
"""Runs a command of QEMU's human monitor on a parked machine."""

# One range of QEMU's `info mtree -f`: where it is, of what, from which offset in it.
_RANGE = re.compile(
    rf"^\s+([0-9a-f]{{16}})-([0-9a-f]{{16}}) \(prio \d+, ram\): {RAM_ID}(?: @([0-9a-f]+))?", re.M
)

# PCs remap these addresses between RAM and ROM while they run (PAM, SMRAM).
_REMAPPED = (0xA0000, 0x100000)


@dataclass(frozen=True)
class RamRange:
    """Physical addresses `start` to before `stop` are guest RAM from byte `offset` on."""

    start: int
    stop: int
    offset: int


async def ask_ram(human: Human, isa: Isa) -> tuple[tuple[RamRange, ...], tuple[RamRange, ...]]:
    """Return where RAM is at all positions, rising, and where it is at some."""
    found = {
        RamRange(int(first, 16), int(last, 16) + 1, int(offset or "0", 16))
        for first, last, offset in _RANGE.findall(await human("info mtree -f"))
    }
    ranges = sorted(found, key=lambda part: part.start)
    if isa.target in X86:
        ranges = [piece for part in ranges for piece in _without(part, *_REMAPPED)]
    return tuple(ranges), _remapped(ranges, isa)


async def ask_physical(human: Human, address: int) -> int | None:
    """Return the physical address of a virtual one; None if it is not mapped."""
    answer = await human(f"gva2gpa {address:#x}")
    return int(answer.split()[-1], 16) if answer.startswith("gpa: ") else None


def _remapped(ranges: list[RamRange], isa: Isa) -> tuple[RamRange, ...]:
    """Return the RAM of PCs that ROM or video memory can cover.

    The chipsets map it to the addresses it would have anyway (QEMU's hw/pci-host/pam.c).
    """
    start, stop = _REMAPPED
    below = [part for part in ranges if part.stop == start and isa.target in X86]
    return tuple(RamRange(start, stop, part.offset + start - part.start) for part in below)


def _without(part: RamRange, start: int, stop: int) -> list[RamRange]:
    """Return what is left of `part` outside `start` to `stop`."""
    low = RamRange(part.start, min(part.stop, start), part.offset)
    begin = max(part.start, stop)
    high = RamRange(begin, part.stop, part.offset + begin - part.start)
    return [piece for piece in (low, high) if piece.start < piece.stop]
