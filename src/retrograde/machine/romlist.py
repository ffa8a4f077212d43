"""What the reset before a load writes into guest RAM: the ROM images that live there.

QEMU lists the images with their addresses (`info roms`; hw/core/loader.c). Machines of
the PC family write nothing else at reset; others do, a device tree for example
(hw/ppc/spapr.c), and for those nothing is known.
"""

from __future__ import annotations

import re

from retrograde.isa.isa import X86
from retrograde.machine.memorymap import Human

PAGE = 4096

_IN_RAM = re.compile(r"^addr=([0-9a-f]+) size=0x([0-9a-f]+) mem=ram ", re.M)

_SPLIT = 0xC000_0000
"""PCs have RAM at its own offset below here at most; the rest lies from 4 GiB on."""


async def pages_reset_writes(human: Human, target: str) -> list[int] | None:
    """Return the numbers of the RAM pages a reset writes, rising; None where nobody knows."""
    if target not in X86:
        return None
    pages: set[int] = set()
    for address, size in _IN_RAM.findall(await human("info roms")):
        first, last = int(address, 16), int(address, 16) + int(size, 16) - 1
        if last >= _SPLIT:
            return None
        pages.update(range(first // PAGE, last // PAGE + 1))
    return sorted(pages)
