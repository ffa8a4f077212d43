"""Who wrote some bytes last: a store, or something that is no instruction.

Memory is physical: the address is translated once, where the question is asked. The index
tells in which interval the lines changed last; only that one is replayed. What the store
found there wrote must still be in memory afterwards: if it is not, a device or a page walk
wrote later, and where is found by looking at the memory between.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrograde.errors import QemuRefused, UsageError
from retrograde.index.hints import IndexHints, lines_of
from retrograde.machine.isa import ByteOrder
from retrograde.machine.probe_page import PAGE_BYTES
from retrograde.timeline.reading import Space
from retrograde.timeline.search import Hit
from retrograde.timeline.timeline import Timeline


@dataclass(frozen=True)
class Write:
    """The last write to some bytes, which were `old` before it and `new` after.

    `pc` is the linear address of the instruction at `position` that wrote, None when none
    did: then a device (DMA) or a page walk wrote between `position` and the next.
    """

    position: int
    pc: int | None
    physical: int
    old: bytes
    new: bytes


async def last_write(
    timeline: Timeline, address: int, count: int = 1, space: Space = "virtual"
) -> Write | None:
    """Return the last write to any of `count` bytes before the cursor; None: there is none.

    The cursor moves. Uses `timeline.hints` where they are of an index, and replays all
    otherwise. Raises QemuRefused when the address is not mapped there, UsageError for a
    range that crosses a page.
    """
    stop = timeline.position
    if count < 1 or address % PAGE_BYTES + count > PAGE_BYTES:
        raise UsageError(
            f"{count} bytes from {address:#x} are not within a page.", "Ask for each page."
        )
    physical = address if space == "physical" else await timeline.physical(address)
    if physical is None:
        raise QemuRefused(f"{address:#x} is not mapped at {stop:_}.")
    final = await timeline.read(physical, count, "physical")
    for first, last, by_others in _candidates(timeline, physical, count, stop):
        span = first, min(last, stop)
        found = await _in(timeline, physical, span, final, by_others=by_others)
        if found:
            return found
    return None


def _candidates(
    timeline: Timeline, physical: int, count: int, stop: int
) -> list[tuple[int, int, bool]]:
    """Return where the bytes may have changed, newest first."""
    hints = timeline.hints
    if not isinstance(hints, IndexHints):
        return [(0, stop, True)]
    page = physical // PAGE_BYTES
    lines = lines_of(physical, physical + count, page)
    known = hints.changed(page * PAGE_BYTES, lines, stop)
    gaps = [(first, last, True) for first, last in hints.unknown(stop)]
    return sorted([*known, *gaps], reverse=True)


async def _in(
    timeline: Timeline, physical: int, span: tuple[int, int], final: bytes, *, by_others: bool
) -> Write | None:
    """Return the last write in `span`, after which the bytes are `final`."""
    count, (first, stop) = len(final), span
    hit = await timeline.last_write(physical, count, "physical", before=stop, after=first)
    if hit:
        old = await _bytes(timeline, physical, count, hit.position)
        new = _stored(old, physical, hit, timeline.view.isa.byte_order)
        if new != final:  # the instruction stored more than that, or others did afterwards
            new = await _bytes(timeline, physical, count, hit.position + 1)
        if new == final:
            return Write(hit.position, hit.pc, physical, old, new)
        return await _by_others(timeline, physical, count, hit.position + 1, stop, final)
    if by_others and await _bytes(timeline, physical, count, first) != final:
        return await _by_others(timeline, physical, count, first, stop, final)
    return None


def _stored(old: bytes, physical: int, hit: Hit, order: ByteOrder) -> bytes:
    """Return the bytes at `physical` after the one store of `hit`."""
    if hit.physical is None or hit.size is None or hit.value is None:
        return b""
    memory = bytearray(old)
    for number, byte in enumerate(hit.value.to_bytes(hit.size, order)):
        if 0 <= hit.physical + number - physical < len(old):
            memory[hit.physical + number - physical] = byte
    return bytes(memory)


async def _by_others(
    timeline: Timeline, physical: int, count: int, low: int, high: int, last: bytes
) -> Write:
    """Halve the way between `low`, where the bytes are not yet `last`, and `high`."""
    old = await _bytes(timeline, physical, count, low)
    while high - low > 1:
        middle = (low + high) // 2
        now = await _bytes(timeline, physical, count, middle)
        if now == last:
            high = middle
        else:
            low, old = middle, now
    return Write(low, None, physical, old, last)


async def _bytes(timeline: Timeline, physical: int, count: int, position: int) -> bytes:
    await timeline.seek(position)
    return await timeline.read(physical, count, "physical")
