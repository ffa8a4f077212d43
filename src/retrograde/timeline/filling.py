"""Filling a window: one forward pass over its positions that keeps everything.

With the probe, QEMU runs one instruction a block and the probe logs every register
change and store. Without it, and where it cannot tell, single steps through the gdbstub give
the registers, and without it memory is left to a real machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrograde.isa.isa import X86
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.machine.probe.request import Memory
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.observe import Seen, Wanted, observe
from retrograde.timeline.seat import Seat
from retrograde.timeline.window import Place, Window, Writes

SLICE = 16
"""Bytes of a register that one change record holds (machine.probe.page.CHANGE)."""


async def fill(
    seat: Seat, view: MachineView, start: int, end: int, places: Sequence[int] = ()
) -> Window:
    """Return the window of positions `start` to `end`, both included; moves `seat`.

    `places` are pages of virtual memory of which it tells where they lie.
    """
    if start == seat.recording.end:
        return Window(start, [None], None)  # nothing begins there, and no step may be taken
    if seat.probe is None:
        return await _by_steps(seat, start, end)
    if view.isa.bare:
        # QEMU's plugins see only registers that its target description has.
        return await follow(seat, view, await _by_steps(seat, start, end), places)
    window = await _by_probe(seat, view, start, end, tuple(view.layout.names), places)
    return window or await _by_steps(seat, start, end)


async def follow(seat: Seat, view: MachineView, window: Window, places: Sequence[int]) -> Window:
    """Return `window` with memory as a replay tells it, and where `places` lie; moves `seat`."""
    if seat.probe is None:
        return window
    told = await _by_probe(seat, view, window.start, window.end, (), places)
    if told is None:
        return window
    return replace(told, start=window.start, packets=window.packets, pcs=window.pcs)


async def _by_steps(seat: Seat, start: int, end: int) -> Window:
    await seat.go(start)
    gdb = await seat.gdb()
    packets = {start: await gdb.read_registers()}
    if end > start:
        with seat.unsettled():
            steps = await gdb.step_many(2 * (end - start) + 1000, until=end)
            await seat.stepped()
        # The last state of a position is the one after taking an interrupt there.
        packets |= dict(zip(steps.positions, steps.registers, strict=True))
    rows = [packets.get(position) for position in range(start, end + 1)]
    rows[-1] = None if seat.facts.is_delivery(end) else rows[-1]
    return Window(start, rows, None)


async def _by_probe(
    seat: Seat,
    view: MachineView,
    start: int,
    end: int,
    names: tuple[str, ...],
    places: Sequence[int],
) -> Window | None:
    """Return the window of a span, None when the probe could not tell all registers.

    `names` are all of the `g` packet, or none: then there are no packets in it.
    """
    clear = start if not seat.facts.is_delivery(start) else seat.facts.clear_before(start)
    memory = Memory(view.ram, tuple(places)) if view.ranges else None
    steps = view.isa.target in X86 and bool(names)
    wanted = Wanted(registers=names, steps=steps, memory=memory, short=True, exact=bool(names))
    # The instruction at `end` must begin for its registers to be seen.
    async with observe(seat, wanted, clear, end) as seen:
        if names and not seen.is_exact:
            return None
        packets = _packets(seen, view.layout, clear, end) if names else []
        if names and seen.until <= end:
            packets[-1] = None  # nothing begins at the end of the log
        missed = 0 if view.pushes_nothing else seen.deliveries_missed
        writes = None
        if seen.before and not missed and not seat.facts.completes_within(clear, seen.until):
            after, quiet = seat.ram_image(seen.before.table), seat.facts.disturbed_from(clear)
            writes = Writes.of(seen.writes(), seen.before, after, view, quiet)
        pcs = seen.pcs() if steps else None
        told = _places(seen, len(names), places)
    return Window(clear, packets, writes, pcs, told)


def _places(seen: Seen, registers: int, pages: Sequence[int]) -> dict[int, Place]:
    """Return where pages lie, told behind so many registers."""
    changes = seen.changes()
    values = np.ascontiguousarray(changes["bytes"]).view(np.uint64).reshape(-1, 2)[:, 0]
    found = {}
    for number, page in enumerate(pages, registers):
        mine = changes["reg"] == number
        found[page] = Place(changes["position"][mine], values[mine], seen.until)
    return found


def _packets(seen: Seen, layout: RegisterLayout, start: int, end: int) -> list[bytes | None]:
    """Put the probe's register changes together to one `g` packet a position."""
    count = end - start + 1
    rows = np.zeros((count, layout.size), dtype=np.uint8)
    changes = seen.changes()
    values = np.ascontiguousarray(changes["bytes"]).view(np.uint8).reshape(-1, SLICE)
    for number, register in enumerate(layout.registers):
        for part in range(-(-register.size // SLICE)):
            mine = np.flatnonzero((changes["reg"] == number) & (changes["slice"] == part))
            size = min(SLICE, register.size - part * SLICE)
            column = slice(register.offset + part * SLICE, register.offset + part * SLICE + size)
            rows[:, column] = _filled(changes["position"][mine], values[mine, :size], start, count)
    return [row.tobytes().hex().encode() for row in rows]


def _filled(
    positions: NDArray[np.uint64], values: NDArray[np.uint8], start: int, count: int
) -> NDArray[np.uint8]:
    """Return at each position the value of the last change at or before it."""
    latest = np.searchsorted(positions, np.arange(start, start + count), side="right") - 1
    filled: NDArray[np.uint8] = values[np.maximum(latest, 0)]
    return filled
