"""The cursor over a recording: any position, both directions.

::

    async with await Timeline.open(recording) as timeline:
        await timeline.seek(timeline.resolve('console:"Kernel panic"'))
        hit = await timeline.last_store(0xffffffff82a0c3c0, 8)
        await timeline.seek(hit.position)

The cursor is a number. What the machine looks like there comes from a window when one
holds the position, and from a replayer parked there otherwise; both give the same
answers. Nothing done here can change the recorded past: there is no way to write.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.isa.isa import X86
from retrograde.machine.gdb.targetdesc import RegisterValues
from retrograde.machine.memorymap import ask_physical
from retrograde.machine.probe.record import is_pushed
from retrograde.machine.probe.request import Access, Breakpoint, Check
from retrograde.machine.qemu import Qemu
from retrograde.machine.screen import Picture, take_picture
from retrograde.machine.segment import ask_linear_pc
from retrograde.machine.traps import Trap
from retrograde.position import check_position
from retrograde.recording.bundle import Recording
from retrograde.timeline import frames, lastwrite, links, search
from retrograde.timeline.digest import ram_digest
from retrograde.timeline.hints import Hints
from retrograde.timeline.history import History
from retrograde.timeline.lastwrite import Write
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.reading import Range, not_followed, read_held, read_parked
from retrograde.timeline.reading import Space as Space
from retrograde.timeline.scan import Scan
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.seat import Seat
from retrograde.timeline.stops import Conditions, StopTable, watch_of
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.survey import DEFAULT_BUDGET
from retrograde.timeline.trace import Trace
from retrograde.timeline.windows import Windows

FEWEST, MOST = 16, 1024
"""Hits that are looked at in one more replay when one hit after the other is asked for."""

Progress = Callable[[int], None]
Result = TypeVar("Result")


class Timeline:
    """A cursor over one recording. Made by `open`; always ended by `close`."""

    def __init__(self, history: History, *, owns: bool = False, walks: bool = True) -> None:
        """Make a cursor at position 0; see `on`."""
        self.history = history
        self._owns = owns
        self._view = history.view
        self._position = 0
        self._windows = Windows(history.pool, history.view, ahead=walks)
        self._stops = StopTable(history.view.conditional)
        self._moments = history.moments
        self._scan: Scan | None = None
        self._ahead = FEWEST
        self._is_again = False
        self._fill: Callable[[], Awaitable[None]] | None = None
        history.enter(self._windows.stop)

    @classmethod
    async def on(
        cls, history: History, *, at: str | int = 0, owns: bool = False, walks: bool = True
    ) -> Self:
        """Put a cursor at position expression `at` of a history.

        `owns` has the history closed with it. One that `walks` has what it will see filled in
        before it is asked for.
        """
        timeline = cls(history, owns=owns, walks=walks)
        try:
            await timeline.seek(history.recording.resolve(at))
        except BaseException:
            await timeline.close()  # which also ends what is being prefetched
            raise
        return timeline

    @classmethod
    async def open(
        cls,
        recording: Recording,
        qemu: Qemu | None = None,
        *,
        at: str | int = 0,
        replayers: int = 2,
        budget: int = DEFAULT_BUDGET,
        use_probe: bool = True,
        progress: Progress | None = None,
    ) -> Self:
        """Open a timeline at position expression `at`, with a history of its own.

        Takes and raises what `History.open` does.
        """
        history = await History.open(
            recording,
            qemu,
            replayers=replayers,
            budget=budget,
            use_probe=use_probe,
            progress=progress,
        )
        return await cls.on(history, at=at, owns=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the cursor, and the processes if they are its own. Safe to repeat."""
        self.history.left(self._windows.stop)
        if self._owns:
            await self._windows.stop()
            await self.history.close()
        else:
            await self._windows.settle()  # ended half-way, others would wait for a new process

    @property
    def recording(self) -> Recording:
        """What is replayed."""
        return self.history.recording

    @property
    def store(self) -> CheckpointStore:
        """The checkpoints."""
        return self.history.store

    @property
    def facts(self) -> LogFacts:
        """What the log tells of positions."""
        return self.history.facts

    @property
    def hints(self) -> Hints | None:
        """What lets searches skip what cannot match (History.hints)."""
        return self.history.hints

    @hints.setter
    def hints(self, hints: Hints | None) -> None:
        self.history.hints = hints

    @property
    def position(self) -> int:
        """Where the cursor is."""
        return self._position

    @property
    def end(self) -> int:
        """The last position."""
        return self.history.end

    @property
    def view(self) -> MachineView:
        """How the machine's registers and RAM are laid out."""
        return self._view

    @property
    def can_search(self) -> bool:
        """Whether break- and watchpoints can be looked for: the probe is there."""
        return self.history.can_search

    def resolve(self, expression: str | int) -> int:
        """Turn a position expression into a position; raises PositionError."""
        return self.recording.resolve(expression)

    async def target_description(self) -> dict[str, bytes]:
        """Return QEMU's target description by document name; empty when it has none."""
        if self._view.isa.bare:
            return {}

        async def ask(seat: Seat) -> dict[str, bytes]:
            return await (await seat.gdb()).target_description()

        return await self._parked(ask)

    # -- moving ------------------------------------------------------------------------

    async def seek(self, position: int) -> None:
        """Move the cursor to `position`; raises PositionError outside the recording."""
        check_position(position, self.end)
        self._fill = None
        await self._windows.jump(position)
        self._position = position

    async def step(self, count: int = 1) -> None:
        """Move forward by `count` instructions; raises PositionError past the end."""
        target = check_position(self._position + count, self.end)
        self._fill = functools.partial(self._windows.step_to, target, self.end)
        await self._come_to(target)

    async def step_back(self, count: int = 1) -> None:
        """Move back by `count` instructions; raises PositionError before the start."""
        target = check_position(self._position - count, self.end)
        if count == 1:
            await self._know_before()
        self._fill = functools.partial(self._windows.step_back_to, target)
        await self._come_to(target)

    async def run(self, stops: Stops | None = None, progress: Progress | None = None) -> Hit | None:
        """Run forward to the next of `stops`, or to the end (None).

        Without `stops` those count that `add_breakpoint` and `add_watchpoint` have set here.
        A breakpoint stops at its instruction, a watchpoint after the access.
        """
        stops, start = self._armed(stops), self._position
        self._scan = scan = self.history.scan(stops)
        record, at = scan.next(start, self.end, passed=start)
        if record is None:
            looking = self._search(stops, scan, progress)
            hit = await search.first_hit(looking, at, self.end, passed=start)
            await self._stop_at(hit.position + hit.is_access if hit else self.end)
            return hit
        hit = search.hit_of(record)
        await self._stop_again(scan, hit, hit.position + hit.is_access, forward=True)
        return hit

    async def run_back(
        self, stops: Stops | None = None, progress: Progress | None = None
    ) -> Hit | None:
        """Run backward to the last of `stops`, or to the start (None).

        Either kind stops at the instruction's position: the old value is visible.
        """
        stops = self._armed(stops)
        self._scan = scan = self.history.scan(stops)
        record, at = scan.last(0, self._position)
        if record is None:
            hit = await search.last_hit(self._search(stops, scan, progress), 0, at)
            await self._stop_at(hit.position if hit else 0)
            return hit
        hit = search.hit_of(record)
        await self._stop_again(scan, hit, hit.position, forward=False)
        return hit

    def foresees(self, stops: Stops | None = None, *, forward: bool) -> bool:
        """Whether the nearest of `stops` that way, or how far none is, is known."""
        self._scan = scan = self.history.scan(self._armed(stops))
        return scan.knows(self._position if forward else self._position - 1)

    async def run_to(self, pc: int, progress: Progress | None = None) -> Hit | None:
        """Run forward to the next time the instruction at linear address `pc` is next.

        Returns None, with the cursor where it was, when it is never reached.
        """
        stops = Stops(breakpoints=(Breakpoint(pc),))
        looking = self._search(stops, Scan(), progress)
        hit = await search.first_hit(looking, self._position, self.end, passed=self._position)
        if hit:
            await self.seek(hit.position)
        return hit

    async def finish(self) -> int | None:
        """Run forward out of the current function; None when it does not return.

        On x86, AArch64, RISC-V and Power; raises UsageError elsewhere.
        """
        leave = frames.finish if self._is_x86 else links.finish
        return await leave(self)

    async def finish_back(self) -> int | None:
        """Run backward to the current function's call; None when there was none.

        Where `finish` is known.
        """
        leave = frames.finish_back if self._is_x86 else links.finish_back
        return await leave(self)

    @property
    def _is_x86(self) -> bool:
        return self._view.isa.target in X86

    # -- looking -----------------------------------------------------------------------

    async def registers(self) -> RegisterValues:
        """Return all registers at the cursor, by name."""
        return self._view.decode(await self.packet())

    async def packet(self) -> bytes:
        """Return the registers at the cursor as QEMU's `g` packet, hex digits."""
        await self._fill_now()
        return await self._windows.packet(self._position)

    async def glimpse(self) -> bytes:
        """Return `packet` with x's for registers that are not at hand; the pc always is."""
        moment = self._moments.get(self._position)
        if moment is None or self._windows.held(self._position):
            return await self.packet()
        return moment.packet

    async def register(self, number: int) -> bytes:
        """Return any register by its number in the target description, as hex digits.

        For those that are not in `packet`; raises QemuRefused when there is no such one.
        """

        async def look(seat: Seat) -> bytes:
            return await (await seat.gdb()).read_register(number)

        return await self._parked(look)

    async def pc(self) -> int:
        """Return the linear address of the next instruction."""
        if moment := self._moments.get(self._position):
            return moment.pc
        registers = await self.registers()
        known = self._view.isa.linear_pc(registers)
        if known is None and (window := self._windows.held(self._position)):
            known = window.linear_pc(self._position)
        if known is not None:
            return known
        return await self._parked(lambda seat: ask_linear_pc(self._view.isa, registers, seat.human))

    async def read(self, address: int, count: int, space: Space = "virtual") -> bytes:
        """Return `count` bytes of memory at the cursor.

        Virtual addresses are in the guest's current address space. Raises QemuRefused
        when part of the range is not mapped.
        """
        if count < 0 or address < 0 or address + count > 1 << 64:
            raise UsageError(f"{count} bytes from {address:#x} are not a range of memory.")
        if count == 0:
            return b""
        if space == "virtual" and (moment := self._moments.get(self._position)):
            data = moment.read(address, count)
            if data is not None:
                return data
            self._moments.look_at(address)
        wanted = Range(address, count, space)
        position, view, packet = self._position, self._view, await self.packet()
        window = self._windows.held(position)
        if window and (pages := not_followed(window, view, position, wanted)):
            window = await self._windows.follow(position, pages)
        if window:
            held = read_held(window, view, packet, position, wanted)
            if held is not None:
                return held
        registers = view.decode(packet)
        return await self._parked(lambda seat: read_parked(seat, view, registers, wanted))

    async def physical(self, address: int) -> int | None:
        """Return the physical address of a virtual one at the cursor; None if not mapped."""
        return await ask_physical(self.human, address)

    def stored(self, position: int, address: int, count: int) -> bytes | None:
        """Return physical memory out of a checkpoint; see `History.stored`."""
        return self.history.stored(position, address, count)

    def write(self, *_what: object) -> NoReturn:
        """Refuse: raises UsageError, whatever register or memory was to be written."""
        raise UsageError(
            "Registers and memory of a recording cannot be written: its past has happened.",
            "Replay depends on it, instruction by instruction; record another run instead.",
        )

    async def physical_at(self, position: int, address: int, count: int) -> bytes:
        """Return physical memory at any position; the cursor stays where it is."""
        return await self.history.physical_at(position, address, count, self._windows.viewers)

    async def digest(self) -> str:
        """Return a digest of all RAM at the cursor; equal RAM has equal digests.

        Raises UsageError for a machine whose RAM is QEMU's own.
        """
        return await self.in_ram(ram_digest)

    async def in_ram(self, look: Callable[[NDArray[np.uint8]], Result]) -> Result:
        """Return what `look`, in a thread of its own, finds in all RAM at the cursor, in place.

        Raises UsageError for a machine whose RAM is QEMU's own.
        """
        if not self.recording.manifest.ram.seen:
            raise UsageError("The RAM of this machine is QEMU's own: it cannot be seen as a whole.")
        return await self._parked(lambda seat: asyncio.to_thread(look, seat.ram.array()))

    async def human(self, line: str) -> str:
        """Return what QEMU's human monitor says at the cursor; `line` must only look."""
        return await self._parked(lambda seat: seat.human(line))

    async def screen(self) -> Picture:
        """Return what is on the guest's screen at the cursor; UsageError where it has none."""
        return await self._parked(lambda seat: take_picture(seat.human))

    async def last_store(
        self,
        address: int,
        count: int = 1,
        space: Space = "virtual",
        before: int | None = None,
        after: int = 0,
    ) -> Hit | None:
        """Return the last store to any of `count` bytes before the cursor, or `before`.

        Positions below `after` are not looked at.
        """
        watch = watch_of(address, count, "w", physical=space == "physical")
        stop = self._position if before is None else before
        return await self.last_hit(Stops(watches=(watch,)), after, stop)

    async def last_write(
        self, address: int, count: int = 1, space: Space = "virtual"
    ) -> Write | None:
        """Return the last write to any of `count` bytes before the cursor; None: there is none.

        By whatever: a store, a device or a page walk. Raises UsageError where part of the
        range is not mapped there, for what is no range, and for more pages than can be watched.
        """
        return await lastwrite.last_write(self, address, count, space)

    async def last_hit(self, stops: Stops, start: int, stop: int) -> Hit | None:
        """Return the last hit of `stops` at a position from `start` to before `stop`."""
        return await search.last_hit(self._search(stops, Scan(), None), start, stop)

    async def all_hits(self, stops: Stops, start: int, stop: int) -> list[Hit]:
        """Return all hits of `stops` at positions from `start` to before `stop`, in order."""
        return await self.history.all_hits(stops, start, stop)

    async def newest_hits(self, stops: Stops, start: int, stop: int) -> tuple[list[Hit], bool]:
        """Return the newest hits, in order, and if they are all; see `History.newest_hits`."""
        return await self.history.newest_hits(stops, start, stop)

    async def trace(self, start: int, stop: int) -> Trace:
        """Return what happened from `start` to before `stop`; see `History.trace`."""
        return await self.history.trace(start, stop)

    async def taken(self) -> list[Trap]:
        """Return the interrupts and exceptions that were taken here, right before the position.

        Their reasons are those that are known (docs/reference/traps.md).
        """
        return await self.history.taken(self._position)

    async def addresses(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return the instructions' addresses from `start` to before `stop`; see `History`."""
        return await self.history.addresses(start, stop)

    # -- break- and watchpoints --------------------------------------------------------

    def add_breakpoint(
        self, pc: int, conditions: Conditions = (), checks: Sequence[Check] = ()
    ) -> int:
        """Stop at the instruction at linear address `pc` if all conditions hold; its number.

        Conditions may be text, as in "rdi & 0xff != 3 and [0xffffffff82000000]:4 > 7"
        (see timeline.condition); of `checks`, which are gdb's, any must hold.
        """
        return self._stops.add_breakpoint(pc, conditions, checks)

    def add_watchpoint(
        self, address: int, count: int, access: Access = "w", space: Space = "virtual"
    ) -> int:
        """Stop at accesses to `count` bytes from `address`; returns its number."""
        return self._stops.add_watchpoint(address, count, access, physical=space == "physical")

    def remove(self, number: int) -> None:
        """Remove a break- or watchpoint; raises UsageError when there is none."""
        self._stops.remove(number)

    async def hits(self, start: int, stop: int) -> list[Hit]:
        """Return all hits at positions from `start` to before `stop`, in order."""
        return await self.all_hits(self._stops.armed(), start, stop)

    def _armed(self, stops: Stops | None) -> Stops:
        return self._stops.armed() if stops is None else stops

    def _search(self, stops: Stops, scan: Scan, progress: Progress | None) -> search.Search:
        self._windows.forget()
        return self.history.search(stops, scan, self._windows.parker, progress)

    async def _stop_at(self, position: int) -> None:
        """Have the cursor where a search ended."""
        self._ahead, self._is_again, self._fill = FEWEST, False, None
        if self._moments.get(position) is None:
            await self.seek(position)
            return
        self._windows.expect(position)
        self._position = position

    async def _stop_again(self, scan: Scan, hit: Hit, position: int, *, forward: bool) -> None:
        """Have the cursor at a hit that was known, as those may be that come after it."""
        self._is_again, self._fill = True, None
        if self._moments.get(position) is None:
            near = scan.around(hit.position, self._more(), forward=forward)
            near = near[~is_pushed(near)]
            places = zip(near["position"].tolist(), near["pc"].tolist(), strict=True)
            await self._gather(dict(places))
        if self._moments.get(position) is None:
            await self.seek(position)
        self._position = position

    async def _come_to(self, position: int) -> None:
        """Have the cursor one step on, in a window unless what it takes to go on is known."""
        if self._moments.get(position) is None:
            await self._fill_now()
        self._position = position

    async def _fill_now(self) -> None:
        """Have a window where the cursor has stepped to, or is about to."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            await fill()

    async def _know_before(self) -> None:
        """Know what is before a hit, and before those before it: they are gone back to."""
        here, before = self._position, self._position - 1
        scan = self._scan
        if scan is None or not self._is_again or self._moments.get(before):
            return
        places = {}
        for position in scan.around(here, self._more(), forward=False)["position"].tolist():
            if (moment := self._moments.get(position)) and moment.before:
                places[position - 1] = moment.before
        if before in places:
            await self._gather(places)

    async def _gather(self, places: Mapping[int, int]) -> None:
        await search.gather(self.history.pool, self._moments, places)

    def _more(self) -> int:
        """Return how many hits to look at, more each time."""
        self._ahead = min(MOST, 8 * self._ahead)
        return self._ahead

    async def _parked(self, look: Callable[[Seat], Awaitable[Result]]) -> Result:
        """Return what `look` finds in the machine, parked at the cursor."""
        position = self._position

        async def there(seat: Seat) -> Result:
            await seat.go(position)
            return await look(seat)

        return await self.history.pool.work(there, self._windows.viewers)
