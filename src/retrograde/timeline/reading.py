"""Guest memory at a position: out of a window when that is certain, else from a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.paging import can_translate, translate
from retrograde.timeline.seat import Seat
from retrograde.timeline.window import Window

Space = Literal["virtual", "physical"]

PAGE = 4096


def read_held(
    window: Window,
    facts: LogFacts,
    view: MachineView,
    registers: Mapping[str, int],
    position: int,
    address: int,
    count: int,
    space: Space,
) -> bytes | None:
    """Return memory at `position` in `window`; None when only a machine can tell."""
    writes = window.writes
    if writes is None or not facts.undisturbed(window.start, position + 1):
        return None

    def read(physical: int, count: int) -> bytes | None:
        offset = view.offset(physical, count)
        return None if offset is None else writes.read(offset, count, position)

    if space == "physical":
        return read(address, count)
    if not can_translate(view.isa.target):
        return None
    data = bytearray()
    while len(data) < count:
        at = address + len(data)
        size = min(count - len(data), PAGE - at % PAGE)
        physical = translate(registers, at, read)
        piece = None if physical is None else read(physical, size)
        if piece is None:
            return None
        data += piece
    return bytes(data)


async def read_parked(
    seat: Seat, view: MachineView, position: int, address: int, count: int, space: Space
) -> bytes:
    """Return memory from the machine in `seat`, moved to `position`.

    Raises QemuRefused when part of the range is not mapped.
    """
    await seat.go(position)
    gdb = await seat.gdb()
    if space == "virtual":
        return await gdb.read_memory(address, count)
    offset = view.offset(address, count)
    if offset is not None:
        return bytes(seat.ram.view()[offset : offset + count])
    with seat.unsettled():
        await gdb.physical_memory_mode(True)
        try:
            return await gdb.read_memory(address, count)
        finally:
            await gdb.physical_memory_mode(False)
