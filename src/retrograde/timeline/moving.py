"""The rules by which a cursor steps, runs and stops, both ways, for every front end alike.

Going back both kinds of stops stop before the instruction k, going forward a breakpoint stops at
k and a watchpoint at k + 1. Stops of the kind that debuggers ask for most, a few instructions
away, are found by walking through windows; others by searching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.timeline import Timeline

SCANNED: Final = 4096
"""Positions looked through at once for watched accesses when single-stepping."""

WALKED: Final = 1024
"""Positions around the cursor looked at one by one before a search."""

SIFTED: Final = 1 << 18
"""The most positions whose hits are collected to try conditions on."""

TURN: Final = 256
"""Steps of a range after which others get their turn: an interrupt, a vanished client."""

Progress = Callable[[int], None]


class Why(Enum):
    """Why a cursor stopped."""

    STEPPED = "it was to go so far"
    BREAK = "an instruction was reached"
    ACCESS = "memory was accessed"
    START = "there is nothing before"
    END = "there is nothing behind"


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a cursor stopped, and the hit that stopped it, if one did."""

    why: Why
    hit: Hit | None = None


class Client(Protocol):
    """What somebody who moves a cursor wants to be stopped by."""

    def stops(self) -> Stops:
        """Return what to look for: all of it, and maybe more (see `holds`)."""

    async def holds(self, pc: int, *, tried: bool) -> bool:
        """Whether one of the breakpoints at linear address `pc` counts here, at the cursor.

        With `tried` the search has found that one does, if there is only one.
        """


class Mover:
    """All ways to move a cursor. Cancelling any leaves it at some position on the way."""

    def __init__(self, timeline: Timeline, client: Client, *, short: bool = False) -> None:
        """`short` stops at accesses one instruction sooner, for clients that then step on."""
        self._timeline = timeline
        self._client = client
        self._short = short
        self._scanned = (0, 0)
        self._scanned_for = Stops()
        self._accesses: list[Hit] = []

    async def step(self) -> Stopped:
        """Execute one instruction; one that is watched is told."""
        position = self._timeline.position
        if position == self._timeline.end:
            return Stopped(Why.END)
        hit = await self._watched(position, position, position + SCANNED)
        if hit is None or not self._short:
            await self._timeline.step()
        return Stopped(Why.ACCESS, hit) if hit else Stopped(Why.STEPPED)

    async def step_back(self) -> Stopped:
        """Undo one instruction; one that is watched is told."""
        position = self._timeline.position
        if position == 0:
            return Stopped(Why.START)
        hit = await self._watched(position - 1, position - SCANNED, position)
        if hit is None or not self._short:
            await self._timeline.step_back()
        return Stopped(Why.ACCESS, hit) if hit else Stopped(Why.STEPPED)

    async def step_while(self, inside: Callable[[], Awaitable[bool]]) -> Stopped:
        """Step as long as the cursor is `inside` and nothing else stops it."""
        steps = 0
        while True:
            stopped = await self.step()
            if stopped.why is not Why.STEPPED or not await inside():
                return stopped
            pc = await self._timeline.pc()
            if await self._client.holds(pc, tried=False):
                return Stopped(Why.BREAK, Hit(self._timeline.position, pc))
            steps += 1
            if steps % TURN == 0:
                await asyncio.sleep(0)

    async def run(self, progress: Progress | None = None) -> Stopped:
        """Go forward to the next stop, or to the end. One at the cursor does not count."""
        return await self._go(True, progress) or Stopped(Why.END)

    async def run_back(self, progress: Progress | None = None) -> Stopped:
        """Go back to the last stop, or to the start."""
        return await self._go(False, progress) or Stopped(Why.START)

    async def _go(self, forward: bool, progress: Progress | None) -> Stopped | None:
        stops = self._client.stops()
        walked = await self._walk(stops, forward=forward)
        return walked or await self._search(stops, forward, progress)

    async def _walk(self, stops: Stops, *, forward: bool) -> Stopped | None:
        """Look at the nearest positions one by one; return the stop if it is there.

        Windows hold them, and most stops of a debugger's next, finish and until are near.
        """
        timeline = self._timeline
        if not stops or stops.watches or timeline.foresees(stops, forward=forward):
            return None
        for _ in range(WALKED):
            if timeline.position == (timeline.end if forward else 0):
                return None
            await (timeline.step() if forward else timeline.step_back())
            pc = await timeline.pc()
            if await self._client.holds(pc, tried=False):
                return Stopped(Why.BREAK, Hit(timeline.position, pc))
        return None

    async def _search(
        self, stops: Stops, forward: bool, progress: Progress | None
    ) -> Stopped | None:
        """Look through all positions ahead, those where something may stop nearest first."""
        move = self._timeline.run if forward else self._timeline.run_back
        tried = {one.pc for one in stops.breakpoints if one.checks}
        sifted = 0
        while hit := await move(stops, progress):
            if stopped := await self._stop_at(hit, forward, tried):
                return stopped
            sifted = min(SIFTED, max(WALKED, 4 * sifted))
            if stopped := await self._sift(stops, forward, sifted, tried):
                return stopped
        return None

    async def _sift(
        self, stops: Stops, forward: bool, count: int, tried: Container[int]
    ) -> Stopped | None:
        """Look at all hits in the next `count` positions: a condition refused the one here.

        Walked to within windows, each costs a thousandth of a search of its own.
        """
        timeline = self._timeline
        here = timeline.position
        start, stop = max(0, here - count), here
        if forward:
            start, stop = here + 1, min(here + count, timeline.end)
        if start >= stop:
            return None
        hits = await timeline.all_hits(stops, start, stop)
        for hit in hits if forward else reversed(hits):
            await self._walk_to(hit.position)
            if found := await self._stop_at(hit, forward, tried):
                return found
        await timeline.seek(stop - 1 if forward else start)
        return None

    async def _stop_at(self, hit: Hit, forward: bool, tried: Container[int]) -> Stopped | None:
        """Return the stop at a hit, with the cursor where it belongs; None if none.

        At the addresses `tried` the search has tried the conditions.
        """
        if hit.is_access:
            await self._walk_to(hit.position + (forward != self._short))
            return Stopped(Why.ACCESS, hit)
        holds = await self._client.holds(hit.pc, tried=hit.pc in tried)
        return Stopped(Why.BREAK, hit) if holds else None

    async def _walk_to(self, position: int) -> None:
        """Have the cursor at a position near it, without a machine where that is known."""
        distance = position - self._timeline.position
        if distance > 0:
            await self._timeline.step(distance)
        elif distance < 0:
            await self._timeline.step_back(-distance)

    async def _watched(self, position: int, start: int, stop: int) -> Hit | None:
        """Return the watched access of the instruction at `position`.

        Those of `start` to `stop` are looked for at once and remembered.
        """
        accesses = Stops(watches=self._client.stops().watches)
        if not accesses or not self._timeline.can_search:
            return None
        known = self._scanned[0] <= position < self._scanned[1]
        if not known or self._scanned_for != accesses:
            span = (max(0, start), min(stop, self._timeline.end))
            self._accesses = await self._timeline.all_hits(accesses, *span)
            self._scanned, self._scanned_for = span, accesses
        return next((hit for hit in self._accesses if hit.position == position), None)
