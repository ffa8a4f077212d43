"""Finding hits: what a search looks for, and the order in which intervals are replayed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.page import NOWHERE, PAGE_BYTES, RECORD
from retrograde.machine.probe.record import data_of, is_access, is_store, number_of
from retrograde.machine.probe.request import Breakpoint, Watch
from retrograde.timeline.hints import Hints
from retrograde.timeline.moments import Moments, positions_of
from retrograde.timeline.observe import Wanted, observe
from retrograde.timeline.pool import Pool
from retrograde.timeline.scan import Records, Scan, gaps
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore

LONGEST = 8
"""Intervals between checkpoints searched in one go, at most: one to two seconds."""

NARROW = 10_000
"""Positions in which hints say that a hit must be, at most."""

NEWEST = 1000
"""Hits returned where the newest are enough."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Stops:
    """What a search looks for: instructions and memory accesses."""

    breakpoints: tuple[Breakpoint, ...] = ()
    watches: tuple[Watch, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.breakpoints or self.watches)

    @property
    def is_lazy(self) -> bool:
        """Whether they can be looked for only where QEMU runs one instruction a block."""
        return any(one.is_lazy for one in self.breakpoints)


@dataclass(frozen=True)
class Hit:
    """An instruction that was looked for.

    It is the one at `position`, and `pc` its linear address. What an interrupt or
    exception pushes before the next instruction counts to it too; `pc` then is the
    handler's. For a memory access, all of it and not only what was watched, `address`,
    `physical`, `size` (in bytes), `value` (the number read or written, in the byte order
    of the access) and `is_store` tell which, `data` is the bytes in the order of memory, and
    `beyond` the physical address of those in the next page, where it crosses into one. For a
    breakpoint these are None. What makes several accesses is several hits.
    """

    position: int
    pc: int
    address: int | None = None
    physical: int | None = None
    size: int | None = None
    value: int | None = None
    is_store: bool | None = None
    data: bytes | None = None
    beyond: int | None = None

    @property
    def is_access(self) -> bool:
        """Whether it is a memory access, not a breakpoint."""
        return self.address is not None

    @property
    def placed(self) -> Sequence[int]:
        """The physical address of each byte accessed; empty where that is not known."""
        if self.address is None or self.size is None or self.physical is None:
            return ()
        here = min(self.size, PAGE_BYTES - self.address % PAGE_BYTES)
        if here == self.size:
            return range(self.physical, self.physical + self.size)
        if self.beyond is None:
            return ()
        rest = range(self.beyond, self.beyond + self.size - here)
        return (*range(self.physical, self.physical + here), *rest)


def hit_of(record: np.void) -> Hit:
    """Return a probe's record as a Hit."""
    position, pc = int(record["position"]), int(record["pc"])
    if not is_access(record):
        return Hit(position, pc)
    return Hit(
        position,
        pc,
        address=int(record["vaddr"]),
        physical=_place(record["paddr"]),
        size=int(record["size"]),
        value=number_of(record),
        is_store=bool(is_store(record)),
        data=data_of(record),
        beyond=_place(record["beyond"]),
    )


def _place(physical: np.uint64) -> int | None:
    return None if physical == NOWHERE else int(physical)


def intervals(store: CheckpointStore, start: int, stop: int) -> list[tuple[int, int]]:
    """Cut `start` to `stop` at the checkpoints between them, in rising order."""
    inner = [c.position for c in store.checkpoints if start < c.position < stop]
    edges = [start, *inner, stop]
    return [(low, high) for low, high in pairwise(edges) if low < high]


def grouped(pieces: Sequence[tuple[int, int]], side_by_side: int) -> list[tuple[int, int]]:
    """Join neighbouring pieces, in the order given, to ever longer ones.

    Near hits come fast from short pieces; far ones from long pieces, because QEMU
    translates all code anew after each load. So many of one length are looked into
    `side_by_side`.
    """
    groups, taken, length = [], 0, 1
    while taken < len(pieces):
        for _ in range(side_by_side):
            group = pieces[taken : taken + length]
            if group:
                groups.append((min(group)[0], max(group)[1]))
            taken += length
        length = min(LONGEST, length * 2)
    return groups


async def all_hits(pool: Pool, stops: Stops, start: int, stop: int) -> list[Hit]:
    """Return all hits at positions from `start` to before `stop`, in order."""
    if not stops:
        return []

    def look(until: int) -> Awaitable[tuple[Records, bool]]:
        return pool.work(lambda seat: _look(seat, stops, start, until))

    records, is_whole = await look(stop)
    parts = [records]
    while not is_whole and len(parts[-1]):
        stop = int(parts[-1]["position"][0])  # of this position some may be lost
        parts[-1] = parts[-1][parts[-1]["position"] > stop]
        records, is_whole = await look(stop + 1)
        parts.append(records)
    return [hit_of(record) for part in reversed(parts) for record in part]


async def newest_hits(pool: Pool, stops: Stops, start: int, stop: int) -> tuple[list[Hit], bool]:
    """Return hits at positions from `start` to before `stop`, in order, and if they are all.

    Of more than NEWEST the newest: what one replay tells.
    """
    records, is_whole = await pool.work(lambda seat: _look(seat, stops, start, stop))
    return [hit_of(record) for record in records[-NEWEST:]], is_whole and len(records) <= NEWEST


@dataclass(frozen=True)
class Search:
    """A search for `stops`: what replays, what is known already and what is kept.

    Where the answer is as good as known, `viewer` goes there meanwhile: whoever asked will
    look at it.
    """

    pool: Pool
    stops: Stops
    scan: Scan
    moments: Moments | None = None
    hints: Hints | None = None
    progress: Progress | None = None
    viewer: Seat | None = None


async def first_hit(search: Search, start: int, stop: int, passed: int) -> Hit | None:
    """Return the first hit at a position from `start` to before `stop`.

    A breakpoint at `passed` does not count.
    """

    async def first(seat: Seat, low: int, high: int) -> Hit | None:
        _records, is_whole = await _look_into(search, seat, low, high)
        while not is_whole and high - low > 1:
            middle = (low + high) // 2
            _records, is_whole = await _look_into(search, seat, low, middle)
            if not is_whole or search.scan.next(low, middle, passed)[0] is not None:
                high = middle
            else:
                low = middle
                _records, is_whole = await _look_into(search, seat, low, high)
        record, _at = search.scan.next(low, high, passed)
        return None if record is None else hit_of(record)

    if not search.stops:
        return None
    pieces = await _pieces(search, start, stop, backward=False)
    return await _first_answer(search, first, pieces)


async def last_hit(search: Search, start: int, stop: int) -> Hit | None:
    """Return the last hit at a position from `start` to before `stop`.

    Intervals between checkpoints are replayed newest first, as many at a time as there
    are replayers.
    """

    async def last(seat: Seat, low: int, high: int) -> Hit | None:
        records, _is_whole = await _look_into(search, seat, low, high)
        return hit_of(records[-1]) if len(records) else None

    if not search.stops:
        return None
    pieces = await _pieces(search, start, stop, backward=True)
    viewer = search.viewer
    others = [seat for seat in search.pool.seats if seat is not viewer]
    if not viewer or not others or not pieces or pieces[0][1] - pieces[0][0] > NARROW:
        return await _first_answer(search, last, pieces)
    there = viewer.facts.clear_before(pieces[0][0])
    ahead = asyncio.create_task(search.pool.work(lambda seat: seat.go(there), (viewer,)))
    try:
        hit = await _first_answer(search, last, pieces, others)
        await ahead
        return hit
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)


async def _pieces(
    search: Search, start: int, stop: int, *, backward: bool
) -> list[tuple[int, int]]:
    """Return what to replay, in order: what hints leave of the way."""
    pieces: list[tuple[int, int]] = []
    spans = await _spans(search, start, stop, backward=backward)
    for span in reversed(spans) if backward else spans:
        cut = intervals(search.pool.seats[0].store, *span)
        pieces += grouped(cut[::-1] if backward else cut, len(search.pool.seats))
    return pieces


async def _spans(
    search: Search, start: int, stop: int, *, backward: bool
) -> Sequence[tuple[int, int]]:
    """Return where on the way a hit can be.

    Of an interval as little is left as can have the answer, unless answers are asked for one
    after the other.
    """
    if search.hints is None:
        return [(start, stop)] if start < stop else []
    only_last = backward and search.scan.is_empty
    spans = await asyncio.to_thread(
        search.hints.spans, search.stops, start, stop, only_last=only_last
    )
    if not only_last:
        for gap in gaps(spans, start, stop):
            search.scan.add(*gap, np.zeros(0, RECORD))
    return spans


async def gather(pool: Pool, moments: Moments, places: Mapping[int, int]) -> None:
    """Have `moments` know what is at positions and right behind them.

    `places` has the linear address of the instruction at each. What is not known of the
    machine there stays unknown.
    """
    kept = moments.kept(chosen=positions_of(list(places)))
    if kept is None or not places:
        return
    stops = Stops(tuple(Breakpoint(pc) for pc in sorted(set(places.values()))))

    async def pass_by(seat: Seat) -> None:
        wanted = Wanted(stops.breakpoints, moments=kept)
        async with observe(seat, wanted, min(places), max(places) + 2) as seen:
            moments.add(seen.moments(), places)

    await pool.work(pass_by)


async def _look_into(search: Search, seat: Seat, start: int, stop: int) -> tuple[Records, bool]:
    """Look as `_look` does, and keep what is found."""
    records, is_whole = await _look(seat, search.stops, start, stop, search.moments)
    if is_whole or stop - start == 1:
        search.scan.add(start, stop, records)
    elif len(records):
        search.scan.add(int(records["position"][0]) + 1, stop, records)
    return records, is_whole


async def _look(
    seat: Seat, stops: Stops, start: int, stop: int, moments: Moments | None = None
) -> tuple[Records, bool]:
    """Return the probe's records of `stops` (Seen.hits), and have `moments` know of them."""
    kept = moments.kept() if moments and stops.breakpoints else None
    lazy = stops.is_lazy
    wanted = Wanted(stops.breakpoints, stops.watches, moments=kept, short=lazy, exact=lazy)
    async with observe(seat, wanted, start, stop) as seen:
        if lazy and not seen.is_exact:
            raise EnvironmentLacks(
                "This QEMU does not let the probe tell the flags.",
                "Leave them out of the condition, and look at them after a seek to each hit.",
            )
        records, is_whole = seen.hits()
        if moments and kept:
            reached = records[~is_access(records)]
            pcs = dict(zip(reached["position"].tolist(), reached["pc"].tolist(), strict=True))
            moments.add(seen.moments(), pcs)
    return records, is_whole


async def _first_answer(
    search: Search,
    look: Callable[[Seat, int, int], Awaitable[Hit | None]],
    pieces: Sequence[tuple[int, int]],
    among: Sequence[Seat] = (),
) -> Hit | None:
    """Look into `pieces` side by side; return the hit of the first of them that has one.

    A replayer, one of `among` or any, is borrowed for each piece: others who wait for one
    wait no longer than a piece takes.
    """
    waiting = deque(pieces)
    running: deque[tuple[asyncio.Task[Hit | None], int]] = deque()
    most = len(among or search.pool.seats)

    async def piece(low: int, high: int) -> Hit | None:
        return await search.pool.work(lambda seat: look(seat, low, high), among)

    try:
        while waiting or running:
            while waiting and len(running) < most:
                start, stop = waiting.popleft()
                running.append((asyncio.create_task(piece(start, stop)), stop))
            task, edge = running.popleft()
            hit = await task
            if search.progress:
                search.progress(edge)
            if hit:
                return hit
        return None
    finally:
        for task, _edge in running:
            task.cancel()
        await asyncio.gather(*(task for task, _edge in running), return_exceptions=True)
