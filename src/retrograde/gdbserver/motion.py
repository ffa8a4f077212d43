"""Moving the timeline as a gdb client asks, and telling it why it stopped.

The mover has one meaning for stops (timeline.moving). gdb expects of each architecture what its
hardware does. Where watchpoints trap before the access, gdb takes a single step in the direction
of travel itself before it looks at the value (infrun.c, have_nonsteppable_watchpoint); for those
we stop one instruction short, at k going forward and at k + 1 going back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograde.errors import InternalError, QemuRefused
from retrograde.gdbserver.face import Face, face_of
from retrograde.gdbserver.points import Point, Points
from retrograde.gdbserver.target import TRAP_BEFORE, byte_order
from retrograde.timeline.moving import Mover, Progress, Stopped, Why
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.timeline import Timeline
from retrograde.wire.agent import BadExpression
from retrograde.wire.rsp_stop import SIGTRAP, StopReason


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
        self._mover = Mover(timeline, self, short=timeline.view.isa.target in TRAP_BEFORE)
        self._told: int | None = None
        self._names = {
            one.number: face.names[one.number]
            for one in face.view.layout.registers
            if one.bits <= 64
        }
        known = timeline.view.conditional
        self._conditional = {n: name for n, name in self._names.items() if name in known}

    def stops(self) -> Stops:
        """Return what the client's points come to."""
        return self._points.stops(self._conditional.get)

    async def holds(self, pc: int, *, tried: bool) -> bool:
        """Whether one of the client's breakpoints at linear address `pc` counts here."""
        return await self._holding(pc, tried=tried) is not None

    async def step(self) -> Stop:
        """Execute one instruction; one that is watched is reported."""
        self._told = None
        return await self._told_of(await self._mover.step())

    async def step_back(self) -> Stop:
        """Undo one instruction; one that is watched is reported."""
        self._told = None
        return await self._told_of(await self._mover.step_back())

    async def step_range(self, start: int, stop: int) -> Stop:
        """Step until the pc is outside [start, stop), or something else stops it."""
        self._told = None

        async def inside() -> bool:
            return start <= await self._gdb_pc() < stop

        return await self._told_of(await self._mover.step_while(inside))

    async def run(self, progress: Progress) -> Stop:
        """Go forward to the next break- or watchpoint, or to the end.

        As in hardware, a breakpoint at the pc counts at once: gdb takes it out and steps
        when that is not wanted. Not a second time though when the client, told of it
        once, insists.
        """
        if self._told != self._timeline.position:
            pc = await self._timeline.pc()
            # On x86 $pc is an offset in a segment; one that differs from the linear address has
            # no breakpoint of gdb's, which would never step off it.
            if pc == await self._gdb_pc() and await self.holds(pc, tried=False):
                return await self._of_break(pc)
        return await self._told_of(await self._mover.run(progress))

    async def run_back(self, progress: Progress) -> Stop:
        """Go back to the last break- or watchpoint, or to the start."""
        return await self._told_of(await self._mover.run_back(progress))

    async def _told_of(self, stopped: Stopped) -> Stop:
        """Return what gdb is told of a stop."""
        match stopped:
            case Stopped(Why.START):
                return AT_BEGIN
            case Stopped(Why.END):
                return AT_END
            case Stopped(Why.BREAK, Hit() as hit):
                return await self._of_break(hit.pc)
            case Stopped(Why.ACCESS, Hit() as hit):
                return self._of_access(hit)
        return Stop()

    async def _gdb_pc(self) -> int:
        if self._is_linear:
            return await self._timeline.pc()
        view = self._timeline.view
        return view.decode(await self._timeline.glimpse())[view.isa.pc]

    async def _holding(self, pc: int, *, tried: bool) -> Point | None:
        points = self._points.breaks_at(pc)
        for point in points:
            if (tried and len(points) == 1) or await self._holds(point):
                return point
        return None

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

    async def _of_break(self, pc: int) -> Stop:
        """Return the stop at a breakpoint that holds at linear address `pc`."""
        self._told = self._timeline.position
        point = await self._holding(pc, tried=True)
        # Told of a software breakpoint where it has none, gdb silently goes on.
        is_visible = point is not None and await self._gdb_pc() == pc
        return Stop(reason=point.reason if point and is_visible else None)

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
