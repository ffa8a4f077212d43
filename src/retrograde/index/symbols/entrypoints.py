"""Where the kernel that is current takes exceptions: on x86 its processor table tells.

A kernel that says nothing of itself still has its handlers in the interrupt descriptor table
(Intel SDM volume 3, 6.10), and its file their names. So it is known where it runs, at each
position: after a kexec that is another kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from retrograde.errors import QemuRefused
from retrograde.isa.isa import LONG_MODE, X86
from retrograde.machine.segment import ask_handlers_table
from retrograde.timeline.timeline import Timeline

NAMES: Final = {
    0: ("asm_exc_divide_error", "divide_error"),
    6: ("asm_exc_invalid_op", "invalid_op"),
    13: ("asm_exc_general_protection", "general_protection"),
    14: ("asm_exc_page_fault", "page_fault", "async_page_fault"),
}
"""What Linux calls the handlers, by vector: since 5.8, and before (arch/x86/entry)."""
FEWEST: Final = 2
"""Handlers that must be moved by as much."""
_PAGE: Final = 4096


async def handlers(timeline: Timeline) -> dict[str, int]:
    """Return the addresses of the handlers at the cursor, by each name they may have.

    Empty where there are none: on other processors, and before a kernel has set them.
    """
    if timeline.view.isa.target not in X86:
        return {}
    registers = await timeline.registers()
    found = await ask_handlers_table(timeline.human)
    if found is None or not registers["cr0"] >> 31:
        return {}
    size = 16 if registers["efer"] & LONG_MODE else 8
    (base, limit), last = found, max(NAMES)
    if limit < (last + 1) * size - 1:
        return {}
    try:
        table = await timeline.read(base, (last + 1) * size)
    except QemuRefused:
        return {}
    gates = {vector: table[vector * size : (vector + 1) * size] for vector in NAMES}
    return {
        name: _offset(gate)
        for vector, gate in gates.items()
        if gate[5] & 0x80  # present
        for name in NAMES[vector]
    }


def moved_by(ran: Mapping[str, int], linked: Mapping[str, int]) -> int | None:
    """Return how far from where they were linked handlers are; None where they do not agree."""
    both = [name for name in ran if name in linked]
    slides = {ran[name] - linked[name] for name in both}
    if len(both) < FEWEST or len(slides) > 1:
        return None
    slide = slides.pop()
    return None if slide % _PAGE else slide


def _offset(gate: bytes) -> int:
    """Return the address in a gate, of 8 or 16 bytes."""
    return int.from_bytes(gate[0:2] + gate[6 : 12 if len(gate) == 16 else 8], "little")
