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
from retrograde.machine.probe_page import PAGE_BYTES
from retrograde.timeline import search
from retrograde.timeline.reading import Space
from retrograde.timeline.search import Stops
from retrograde.timeline.stops import watch_of
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
    for first, last, by_others in await _candidates(timeline, physical, count, stop):
        found = await _in(timeline, physical, count, first, min(last, stop), by_others=by_others)
        if found:
            return found
    return None


async def _candidates(
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
    timeline: Timeline, physical: int, count: int, first: int, stop: int, *, by_others: bool
) -> Write | None:
    """Return the last write from `first` to before `stop`."""
    watch = watch_of(physical, count, "w", physical=True)
    seats = await timeline.free_seats()
    hit = await search.last_hit(seats, Stops(watches=(watch,)), first, stop, None, timeline.hints)
    after = hit.position + 1 if hit else first
    if by_others or (hit and stop != after):
        new, end = await _bytes(timeline, physical, count, after), stop
        last = await _bytes(timeline, physical, count, end)
        if last != new:
            return await _by_others(timeline, physical, count, after, end, last)
    if hit is None:
        return None
    old = await _bytes(timeline, physical, count, hit.position)
    return Write(
        hit.position, hit.pc, physical, old, await _bytes(timeline, physical, count, after)
    )


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
