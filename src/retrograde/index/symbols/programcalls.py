"""Where user programs were mapped in a recording that is indexed.

Which positions to look at is told by the index: code that ran at the same place of a page as a
program's entry point may be that, wherever the program is, and the calls into its code have
their address spaces. Whether it is mapped there is seen in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from retrograde.index.symbols.programplace import Place, Stay
from retrograde.index.symbols.programsearch import Wanted, places_here, stays_at_checkpoints
from retrograde.index.tables.store import IndexStore, has_table
from retrograde.timeline.pages import PAGE
from retrograde.timeline.timeline import Timeline

_USER_STOP: Final = 1 << 56
"""User programs are below, on all x86."""
MOST_TRIED: Final = 64
"""Places tried for a program, and address spaces for each: the first ones."""


async def stays_of(timeline: Timeline, programs: Sequence[Wanted]) -> list[list[Stay]]:
    """Return where programs were mapped; the cursor may have moved.

    Without an index of all of the recording only the checkpoints are looked at.
    """
    recording = timeline.recording
    if has_table(recording, "calls"):
        store = IndexStore(recording)
        if store.covers("blocks", timeline.end) and store.covers("calls", timeline.end):
            with contextlib.closing(store.connect(("blocks", "calls"))) as index:
                return [await _by_index(timeline, index, wanted) for wanted in programs]
    return await stays_at_checkpoints(timeline, programs)


async def _by_index(timeline: Timeline, index: Any, wanted: Wanted) -> list[Stay]:
    """Return where a program was while it was called into; `index` is DuckDB's connection."""
    bases = [0]
    if wanted.movable:
        starts = index.execute(
            "SELECT pc FROM blocks WHERE pc & 4095 = ? AND pc >= ? AND pc < ? "
            "GROUP BY pc ORDER BY min(first) LIMIT ?",
            [wanted.entry % PAGE, wanted.entry, _USER_STOP, MOST_TRIED],
        ).fetchall()
        bases = [pc - wanted.entry for (pc,) in starts]
    addresses = [piece.address for piece in wanted.pieces]
    low, high = min(addresses) & -PAGE, max(addresses) | PAGE - 1
    found = []
    for base in bases:
        called = index.execute(
            "SELECT min(position), max(position) FROM calls WHERE target BETWEEN ? AND ? "
            "GROUP BY space ORDER BY min(position) LIMIT ?",
            [base + low, base + high, MOST_TRIED],
        ).fetchall()
        for first, last in called:
            place = await _place_at(timeline, first, wanted)
            if place and place.base == base and place == await _place_at(timeline, last, wanted):
                found.append(Stay(place, first, last + 1))
    return found


async def _place_at(timeline: Timeline, position: int, wanted: Wanted) -> Place | None:
    await timeline.seek(position)
    return (await places_here(timeline, wanted.pieces)).current
