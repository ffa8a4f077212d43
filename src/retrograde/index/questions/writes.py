"""Every store to some memory: the table `writes`, and what a script asks for at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.index.questions.hints import IndexHints
from retrograde.index.tables.files import Interval
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.stores import CAPACITY, Stores, trace
from retrograde.machine.probe.page import MOST_BYTES, NOWHERE, RECORD
from retrograde.machine.probe.record import numbers_of
from retrograde.machine.probe.request import WORD, Watch
from retrograde.machine.probe.support import require_probe
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.lastwrite import changes, pieces_of
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.opening import checkpoints_of, probe_for
from retrograde.timeline.reading import Space
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.seat import Progress, Seat
from retrograde.timeline.timeline import Timeline

TABLE: Final = "writes"


class Store(NamedTuple):
    """A row of `writes`: a store, with what its columns say (docs/reference/tables.md)."""

    position: int
    pc: int
    vaddr: int | None
    paddr: int | None
    size: int | None
    value: int | None
    value_high: int | None
    beyond: int | None


@dataclass(frozen=True)
class Report:
    """What building came to: rows written."""

    rows: int


async def build_writes(
    recording: Recording,
    qemu: Qemu,
    watch: Watch | None,
    span: Interval,
    *,
    surveying: Progress | None = None,
    progress: Progress | None = None,
) -> Report:
    """Add the stores to `watch`, or all, at the positions in `span` to the table.

    Positions that are in it are not replayed again; rows for another `watch` are removed.
    What is done stays, whatever ends the work. Raises UsageError for an empty span,
    EnvironmentLacks without the probe or when the disk is full.
    """
    if span[0] >= span[1]:
        raise UsageError(
            f"From {span[0]:_} to {span[1]:_} there is no instruction.",
            "Give two positions, the smaller one first.",
        )
    library = require_probe(qemu.path)
    index, rows = IndexStore(recording), 0
    index.claim(TABLE, f"QEMU {qemu.digest[:16]} for stores to {_words(watch)}")
    store = await checkpoints_of(recording, qemu, progress=surveying)
    facts = LogFacts.read(recording.log())
    writing: asyncio.Future[None] | None = None
    with contextlib.closing(store), probe_for(recording, facts, library, CAPACITY) as probe:
        async with await Seat.take(recording, qemu, store, facts, probe) as seat:
            try:
                async for found in _all(seat, watch, _gaps(index.done(TABLE), span), progress):
                    if writing:
                        await writing
                    write = asyncio.to_thread(
                        index.write, TABLE, found.first, found.last, _columns(found.records)
                    )
                    writing = asyncio.ensure_future(write)
                    rows += len(found.records)
            finally:
                if writing:
                    await writing
    return Report(rows)


async def stores_to(
    timeline: Timeline, address: int, count: int = 1, space: Space = "virtual"
) -> list[Hit]:
    """Return all stores to any of `count` bytes before the cursor, in order.

    The bytes are those that are at `address` there, wherever else they were mapped before.
    Only what `timeline.hints` do not rule out is replayed.
    Raises as `last_write` does.
    """
    pieces = await pieces_of(timeline, address, count, space)
    found = await changes(timeline.hints, pieces, timeline.position)
    spans = _joined([(low, high) for low, high, _ in reversed(found)])
    watches = tuple(Watch(piece.physical, piece.count, physical=True) for piece in pieces)
    hits: list[Hit] = []
    for first, last in spans:
        hits += await timeline.all_hits(Stops(watches=watches), first, last)
    return hits


async def _all(
    seat: Seat, watch: Watch | None, gaps: Sequence[Interval], progress: Progress | None
) -> AsyncIterator[Stores]:
    """Yield the stores in `gaps`, every position of them in one stretch."""
    hints = IndexHints.of(seat.recording) if watch else None
    stops = Stops(watches=(watch,) if watch else ())
    for first, last in gaps:
        done = first
        spans = hints.spans(stops, first, last, only_last=False) if hints else [(first, last)]
        for low, high in spans:
            async for found in trace(seat, stops.watches, low, high, progress):
                yield Stores(done, found.last, found.records)
                done = found.last
        if done < last:
            yield Stores(done, last, np.zeros(0, RECORD))


def _joined(spans: Sequence[Interval]) -> list[Interval]:
    """Return `spans`, which rise, with neighbours as one: each needs a load."""
    joined: list[Interval] = []
    for first, last in spans:
        if joined and joined[-1][1] == first:
            first = joined.pop()[0]
        joined.append((first, last))
    return joined


def _gaps(done: Sequence[Interval], span: Interval) -> list[Interval]:
    """Return what of `span` is in none of the intervals `done`, which rise."""
    gaps, at = [], span[0]
    for first, last in done:
        if at < first and at < span[1]:
            gaps.append((at, min(first, span[1])))
        at = max(at, last)
    return [*gaps, (at, span[1])] if at < span[1] else gaps


def row_of(hit: Hit) -> Store:
    """Return a store as the table's row is."""
    value, high = hit.value, None
    if value is not None and hit.size == MOST_BYTES:
        value, high = value & WORD, value >> 64
    return Store(hit.position, hit.pc, hit.address, hit.physical, hit.size, value, high, hit.beyond)


def _columns(records: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    low, high = numbers_of(records)
    return {
        "position": records["position"].astype(np.int64),
        **{name: records[name] for name in ("pc", "vaddr")},
        "paddr": _known(records["paddr"]),
        "size": records["size"].astype(np.int32),
        "value": low,
        "value_high": np.ma.array(high, mask=records["size"] < MOST_BYTES),
        "beyond": _known(records["beyond"]),
    }


def _known(places: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.ma.array(places, mask=places == NOWHERE)


def _words(watch: Watch | None) -> str:
    if watch is None:
        return "all memory"
    return f"{watch.length} bytes from {'physical ' * watch.physical}{watch.start:#x}"
