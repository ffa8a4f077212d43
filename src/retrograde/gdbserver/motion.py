"""Moving the timeline as a gdb client asks, and telling it why it stopped.

The timeline has one meaning for stops (docs/architecture.md): going back both kinds stop
before the instruction k, going forward a breakpoint stops at k and a watchpoint at k+1.
gdb expects of each architecture what its hardware does. Where watchpoints trap before
the access, gdb takes a single step in the direction of travel itself before it looks
at the value (infrun.c, have_nonsteppable_watchpoint); for those we stop one instruction
short, at k going forward and at k+1 going back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.errors import InternalError, QemuRefused
from retrograde.gdbserver.face import Face, face_of
from retrograde.gdbserver.points import Point, Points
from retrograde.gdbserver.target import TRAP_BEFORE, byte_order
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.timeline import Timeline
from retrograde.wire.agent import BadExpression
from retrograde.wire.rsp_stop import SIGTRAP, StopReason

SCANNED: Final = 4096
"""Positions looked through at once for watched accesses when single-stepping."""

WALKED: Final = 1024
"""Positions around the cursor looked at one by one before a search."""

SIFTED: Final = 1 << 18
"""The most positions whose hits are collected to try conditions on."""

TURN: Final = 256
"""Steps of a range after which others get their turn: an interrupt, a vanished client."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the machine stopped: a stop reply without its registers."""

    signal: int = SIGTRAP
    reason: StopReason | None = None
    address: int | None = None
    log_end: Literal["begin", "end"] | None = None


AT_BEGIN = Stop(reason=StopReason.REPLAY_LOG, log_end="begin")
AT_END = Stop(reason=StopReason.REPLAY_LOG, log_end="end")


class Motion:
    """All ways to move. Cancelling any leaves the timeline at some position on the way."""

    def __init__(self, timeline: Timeline, points: Points, face: Face | None = None) -> None:
        """`face` is how the client sees the machine, as QEMU has it by default."""
        face = face or face_of(timeline.view, None)
        self._timeline = timeline
        self._is_linear = face.linear
        self._points = points
        self._before = timeline.view.isa.target in TRAP_BEFORE
        self._told: int | None = None
        self._scanned = (0, 0)
        self._scanned_for: frozenset[Point] = frozenset()
        self._accesses: list[Hit] = []
        self._names = {
            one.number: face.names[one.number]
            for one in face.view.layout.registers
            if one.bits <= 64
        }
        known = timeline.view.conditional
        self._conditional = {n: name for n, name in self._names.items() if name in known}

    async def step(self) -> Stop:
        """Execute one instruction; one that is watched is reported."""
        position = self._timeline.position
        if position == self._timeline.end:
            return AT_END
        self._told = None
        hit = await self._watched(position, position, position + SCANNED)
        if hit is None or not self._before:
            await self._timeline.step()
        return self._of_access(hit) if hit else Stop()

    async def step_back(self) -> Stop:
        """Undo one instruction; one that is watched is reported."""
        position = self._timeline.position
        if position == 0:
            return AT_BEGIN
        self._told = None
        hit = await self._watched(position - 1, position - SCANNED, position)
        if hit is None or not self._before:
            await self._timeline.step_back()
        return self._of_access(hit) if hit else Stop()

    async def step_range(self, start: int, stop: int) -> Stop:
        """Step until the pc is outside [start, stop), or something else stops it."""
        steps = 0
        while True:
            outcome = await self.step()
            if outcome != Stop():
                return outcome
            if not start <= await self._gdb_pc() < stop:
                return outcome
            if point := await self._break_here():
                return self._of_break(point)
            steps += 1
            if steps % TURN == 0:
                await asyncio.sleep(0)

    async def run(self, progress: Progress) -> Stop:
        """Go forward to the next break- or watchpoint, or to the end.

        As in hardware, a breakpoint at the pc counts at once: gdb takes it out and steps
        when that is not wanted. Not a second time though when the client, told of it
        once, insists.
        """
        stops = self._stops()
        if self._told != self._timeline.position and (point := await self._break_here()):
            return self._of_break(point)
        walked = await self._walk(stops, forward=True)
        return walked or await self._search(stops, True, progress) or AT_END

    async def run_back(self, progress: Progress) -> Stop:
        """Go back to the last break- or watchpoint, or to the start."""
        stops = self._stops()
        walked = await self._walk(stops, forward=False)
        return walked or await self._search(stops, False, progress) or AT_BEGIN

    def _stops(self) -> Stops:
        return self._points.stops(self._conditional.get)

    async def _walk(self, stops: Stops, forward: bool) -> Stop | None:
        """Look at the nearest positions one by one; return the stop if it is there.

        Windows hold them, and most stops of gdb's next, finish and until are near.
        """
        timeline = self._timeline
        if not stops or stops.watches or timeline.foresees(stops, forward=forward):
            return None
        for _ in range(WALKED):
            if timeline.position == (timeline.end if forward else 0):
                return None
            await (timeline.step() if forward else timeline.step_back())
            pc = await timeline.pc()
            if stop := await self._reached(pc, decided=False):
                return stop
        return None

    async def _search(self, stops: Stops, forward: bool, progress: Progress) -> Stop | None:
        """Look through all positions ahead, those where something may stop nearest first."""
        move = self._timeline.run if forward else self._timeline.run_back
        decided = {one.pc for one in stops.breakpoints if one.checks}
        sifted = 0
        while hit := await move(stops, progress):
            if stop := await self._stop_at(hit, forward, decided):
                return stop
            sifted = min(SIFTED, max(WALKED, 4 * sifted))
            if stop := await self._sift(stops, forward, sifted):
                return stop
        return None

    async def _sift(self, stops: Stops, forward: bool, count: int) -> Stop | None:
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
        decided = {one.pc for one in stops.breakpoints if one.checks}
        for hit in hits if forward else reversed(hits):
            await self._walk_to(hit.position)
            if found := await self._stop_at(hit, forward, decided):
                return found
        await timeline.seek(stop - 1 if forward else start)
        return None

    async def _stop_at(self, hit: Hit, forward: bool, decided: Container[int]) -> Stop | None:
        """Return the stop at a hit, with the cursor where gdb expects it; None if none.

        At the addresses `decided` the search has tried the conditions.
        """
        if not hit.is_access:
            return await self._reached(hit.pc, decided=hit.pc in decided)
        await self._walk_to(hit.position + (forward != self._before))
        return self._of_access(hit)

    async def _walk_to(self, position: int) -> None:
        """Have the cursor at a position near it, without a machine where that is known."""
        distance = position - self._timeline.position
        if distance > 0:
            await self._timeline.step(distance)
        elif distance < 0:
            await self._timeline.step_back(-distance)

    async def _reached(self, pc: int, *, decided: bool) -> Stop | None:
        """Return the stop at a breakpoint at linear address `pc` whose condition holds here.

        With `decided` that is known of one of them.
        """
        points = self._points.breaks_at(pc)
        for point in points:
            if (decided and len(points) == 1) or await self._holds(point):
                return self._of_break(point, visible=await self._gdb_pc() == pc)
        return None

    async def _break_here(self) -> Point | None:
        """Return the breakpoint at the cursor where gdb sees it: at its own $pc.

        On x86 $pc is an offset in a segment; one that differs from the linear address
        has no breakpoint of gdb's, which would never step off it.
        """
        pc = await self._timeline.pc()
        if pc == await self._gdb_pc():
            for point in self._points.breaks_at(pc):
                if await self._holds(point):
                    return point
        return None

    async def _gdb_pc(self) -> int:
        if self._is_linear:
            return await self._timeline.pc()
        view = self._timeline.view
        return view.decode(await self._timeline.glimpse())[view.isa.pc]

    async def _holds(self, point: Point) -> bool:
        """Whether a breakpoint counts here; one that cannot be evaluated does, as in gdb."""
        if not point.conditions:
            return True
        registers = await self._timeline.registers()
        order = byte_order(self._timeline.view, await self._timeline.packet())

        async def memory(address: int, size: int) -> int:
            return int.from_bytes(await self._timeline.read(address, size), order)

        def register(number: int) -> int:
            return registers[self._names[number]]

        try:
            for condition in point.conditions:
                if await condition.evaluate(register, memory):
                    return True
        except (BadExpression, KeyError, QemuRefused):
            return True
        return False

    def _of_break(self, point: Point, visible: bool = True) -> Stop:
        # Told of a software breakpoint where it has none, gdb silently goes on.
        self._told = self._timeline.position
        return Stop(reason=point.reason if visible else None)

    def _of_access(self, hit: Hit) -> Stop:
        """Return the stop at an access; the address is one the watchpoint has.

        Without a reason gdb would take it for a signal and, told to go on, be stopped by
        the same access for ever.
        """
        self._told = None
        for point in self._points.watches:
            address = point.seen_at(hit)
            if address is not None:
                return Stop(reason=point.reason, address=address)
        raise InternalError(f"No watchpoint is concerned by what stopped it: {hit}.")

    async def _watched(self, position: int, start: int, stop: int) -> Hit | None:
        """Return the watched access of the instruction at `position`.

        Those of `start` to `stop` are looked for at once and remembered.
        """
        watches = self._points.watches
        if not watches or not self._timeline.can_search:
            return None
        known = self._scanned[0] <= position < self._scanned[1]
        if not known or self._scanned_for != watches:
            span = (max(0, start), min(stop, self._timeline.end))
            accesses = Stops(watches=self._stops().watches)
            self._accesses = await self._timeline.all_hits(accesses, *span)
            self._scanned, self._scanned_for = span, watches
        return next((hit for hit in self._accesses if hit.position == position), None)
