"""Who wrote some bytes last: a store, or something that is no instruction.

Memory is physical: the address is translated once, where the question is asked. The index
tells in which interval the lines changed last; only that one is replayed. What the store
found there wrote must still be in memory afterwards: if it is not, a device or a page walk
wrote later, and where is found by looking at the memory between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrograde.errors import UsageError
from retrograde.machine.probe.page import PAGE_BYTES
from retrograde.machine.probe.request import Watch
from retrograde.timeline.hints import Change, Hints, lines_of
from retrograde.timeline.reading import Space
from retrograde.timeline.search import Hit, Stops


class _Past(Protocol):
    """What the question needs of a timeline, which see for what they do."""

    @property
    def hints(self) -> Hints | None: ...

    @property
    def position(self) -> int: ...

    async def physical(self, address: int) -> int | None: ...

    async def physical_at(self, position: int, address: int, count: int) -> bytes: ...

    async def last_hit(self, stops: Stops, start: int, stop: int) -> Hit | None: ...

    async def newest_hits(self, stops: Stops, start: int, stop: int) -> tuple[list[Hit], bool]: ...

    def stored(self, position: int, address: int, count: int) -> bytes | None: ...


@dataclass(frozen=True)
class Write:
    """The last write to any of some bytes, all of them as `old` before it and `new` after.

    `pc` is the linear address of the instruction at `position` that wrote, None when none
    did: then a device (DMA) or a page walk wrote between `position` and the next.
    `physical` is the address of the first of the bytes.
    """

    position: int
    pc: int | None
    physical: int
    old: bytes
    new: bytes


@dataclass(frozen=True)
class Piece:
    """`count` bytes in one page of physical memory."""

    physical: int
    count: int


async def last_write(
    timeline: _Past, address: int, count: int = 1, space: Space = "virtual"
) -> Write | None:
    """Return the last write to any of `count` bytes before the cursor; None: there is none.

    Uses `timeline.hints`, and replays all where there are none. The cursor stays. Raises
    UsageError where part of the range is not mapped there, for what is no range, and for more
    pages than can be watched.
    """
    pieces = await pieces_of(timeline, address, count, space)
    return await _Question(timeline, pieces, timeline.position).answer()


async def last_store(timeline: _Past, pieces: Sequence[Piece], stop: int) -> Hit | None:
    """Return the last store to any of `pieces` before `stop`, unless others may have written later.

    Cheaper than `last_write`, which is to be asked where this returns None.
    """
    question = _Question(timeline, pieces, stop)
    for first, last, by_others in await question.spans():
        hit = await question.store_within(first, last)
        if hit or by_others:
            return hit
    return None


async def pieces_of(timeline: _Past, address: int, count: int, space: Space) -> list[Piece]:
    """Return where a range is in physical memory at the cursor; raises as `last_write`."""
    if count < 1 or address < 0 or address + count > 1 << 64:
        raise UsageError(
            f"{count} bytes from {address:#x} are not a range of memory.",
            "Give an address and at least one byte.",
        )
    pieces, at = [], address
    while at < address + count:
        here = min(PAGE_BYTES - at % PAGE_BYTES, address + count - at)
        physical = at if space == "physical" else await timeline.physical(at)
        if physical is None:
            raise UsageError(
                f"{at:#x} is not mapped at {timeline.position:_}.",
                "Choose a position at which it is, or give a physical address.",
            )
        pieces.append(Piece(physical, here))
        at += here
    return pieces


async def changes(hints: Hints | None, pieces: Sequence[Piece], stop: int) -> list[Change]:
    """Return the spans before `stop` in which the bytes may have changed, newest first."""
    if hints is None:
        return [(0, stop, True)]
    return await asyncio.to_thread(_known_changes, hints, pieces, stop)


def _known_changes(hints: Hints, pieces: Sequence[Piece], stop: int) -> list[Change]:
    others: dict[tuple[int, int], bool] = dict.fromkeys(hints.unknown(stop), True)
    for piece in pieces:
        page = piece.physical // PAGE_BYTES
        lines = lines_of(piece.physical, piece.physical + piece.count, page)
        for first, last, by_others in hints.changed(page * PAGE_BYTES, lines, stop):
            span = first, min(last, stop)
            others[span] = by_others or others.get(span, False)
    return sorted(((*span, by_others) for span, by_others in others.items()), reverse=True)


class _Question:
    """The question who wrote `pieces` last before `stop`."""

    def __init__(self, timeline: _Past, pieces: Sequence[Piece], stop: int) -> None:
        self._timeline = timeline
        self._pieces = pieces
        self._stop = stop
        at = [one.physical + byte for one in pieces for byte in range(one.count)]
        self._count = len(at)
        self._numbers = {address: number for number, address in enumerate(at)}

    async def answer(self) -> Write | None:
        final = await self._bytes(self._stop)
        for first, last, by_others in await self.spans():
            found = await self._within(first, last, final, by_others=by_others)
            if found:
                return found
        return None

    async def spans(self) -> list[Change]:
        """Return where the bytes may have changed, newest first."""
        return await changes(self._timeline.hints, self._pieces, self._stop)

    @property
    def _watches(self) -> Stops:
        watches = (Watch(one.physical, one.count, physical=True) for one in self._pieces)
        return Stops(watches=tuple(watches))

    async def store_within(self, first: int, stop: int) -> Hit | None:
        """Return the last store from `first` to before `stop`."""
        return await self._timeline.last_hit(self._watches, first, stop)

    async def _within(
        self, first: int, stop: int, final: bytes, *, by_others: bool
    ) -> Write | None:
        """Return the last write from `first` to before `stop`, after which all is `final`."""
        before = None if by_others else self._kept(first)
        if before is None:
            hit = await self.store_within(first, stop)
        else:
            hits, are_all = await self._timeline.newest_hits(self._watches, first, stop)
            if write := self._told(before if are_all else None, hits, final):
                return write
            hit = hits[-1] if hits else None
        if hit:
            old = await self._bytes(hit.position)
            new = self._after(old, [hit])
            if new != final:  # the instruction stored more than that, or others did afterwards
                new = await self._bytes(hit.position + 1)
            if new == final:
                return Write(hit.position, hit.pc, self._pieces[0].physical, old, new)
            return await self._by_others(hit.position + 1, stop, final)
        if by_others and await self._bytes(first) != final:
            return await self._by_others(first, stop, final)
        return None

    def _told(self, before: bytes | None, hits: Sequence[Hit], final: bytes) -> Write | None:
        """Return the last write if stores alone tell it, which were to `before`."""
        if not hits or self._after(before, hits) != final:
            return None
        last = hits[-1]
        old = self._after(before, [one for one in hits if one.position < last.position])
        if old is None:
            return None
        return Write(last.position, last.pc, self._pieces[0].physical, old, final)

    def _kept(self, position: int) -> bytes | None:
        """Return the bytes out of the checkpoint at `position`; None when it cannot tell.

        Nor where one page is mapped twice in the range: a store is then to two of its bytes.
        """
        parts = [self._timeline.stored(position, one.physical, one.count) for one in self._pieces]
        known = b"".join(part for part in parts if part)
        return known if len(known) == len(self._numbers) == self._count else None

    def _after(self, old: bytes | None, stores: Sequence[Hit]) -> bytes | None:
        """Return the bytes after some stores, which were `old` before; None if that is unknown."""
        memory: dict[int, int] = {}
        for hit in reversed(stores):
            if not hit.placed or hit.data is None:
                return None
            for at, byte in zip(hit.placed, hit.data, strict=True):
                if at in self._numbers:
                    memory.setdefault(self._numbers[at], byte)
        if old is None and len(memory) < self._count:
            return None
        result = bytearray(old or self._count)
        for number, byte in memory.items():
            result[number] = byte
        return bytes(result)

    async def _by_others(self, low: int, high: int, final: bytes) -> Write:
        """Halve the way between `low`, where the bytes are not yet `final`, and `high`.

        Where PCs map ROM over RAM or take it away, bytes change that nobody wrote, maybe
        in an interval that has no writes: then they are not `final` at its end.
        """
        if high < self._stop and await self._bytes(high) != final:
            low, high = high, self._stop
        old = await self._bytes(low)
        while high - low > 1:
            middle = (low + high) // 2
            now = await self._bytes(middle)
            if now == final:
                high = middle
            else:
                low, old = middle, now
        return Write(low, None, self._pieces[0].physical, old, final)

    async def _bytes(self, position: int) -> bytes:
        memory = self._timeline.physical_at
        return b"".join([await memory(position, one.physical, one.count) for one in self._pieces])
