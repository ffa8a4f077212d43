"""All that can be known of one recording by replaying it, for any number of cursors.

::

    async with await History.open(recording) as history:
        here, there = await Timeline.on(history), await Timeline.on(history, at="50%")

It owns the replayers; the only way to one is to borrow it (timeline.pool). What searches look
for is their argument, and what they have found is kept for whoever looks for the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.machine.scheduling import must_be_alone
from retrograde.machine.traps import Trap
from retrograde.position import check_position
from retrograde.recording.bundle import Recording
from retrograde.timeline import search
from retrograde.timeline.hints import Hints
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.moments import Moments
from retrograde.timeline.opening import checkpoints_of, probes_for
from retrograde.timeline.pool import Pool, end
from retrograde.timeline.reading import Range, read_parked
from retrograde.timeline.scan import Scan
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.survey import DEFAULT_BUDGET
from retrograde.timeline.taken import traps_at
from retrograde.timeline.trace import Trace, addresses, trace

SCANS_KEPT = 4
"""Sets of break- and watchpoints whose hits are remembered: a debugger adds one of its own to
the user's for a moment, and takes it away."""

Progress = Callable[[int], None]


class History:
    """The replayers, checkpoints and facts of one recording. Made by `open`, ended by `close`."""

    def __init__(
        self, recording: Recording, store: CheckpointStore, pool: Pool, view: MachineView
    ) -> None:
        self.recording = recording
        self.store = store
        self.pool = pool
        self.view = view
        self.facts = pool.seats[0].facts
        self.moments = Moments(view, self.facts)
        self.hints: Hints | None = None
        """What lets searches skip what cannot match: an index (index.questions.hints)."""
        self._scans: dict[Stops, Scan] = {}
        self._taken: dict[int, list[Trap]] = {}
        self._guests: set[Callable[[], Awaitable[None]]] = set()

    @classmethod
    async def open(
        cls,
        recording: Recording,
        qemu: Qemu | None = None,
        *,
        replayers: int = 2,
        budget: int = DEFAULT_BUDGET,
        use_probe: bool = True,
        progress: Progress | None = None,
    ) -> Self:
        """Open the history of a recording with so many QEMU processes.

        The first time, one replay makes checkpoints in the recording's cache, within
        `budget` bytes of disk; `progress` is told its position. Raises UsageError for a
        recording of several processors, QemuMismatch, InputChanged and EnvironmentLacks as
        `qemu_for` does; without a usable probe all is done by single steps.
        """
        must_be_alone(recording)
        used = qemu if qemu else await asyncio.to_thread(qemu_for, recording)
        store = await checkpoints_of(recording, used, budget=budget, progress=progress)
        facts = await asyncio.to_thread(lambda: LogFacts.read(recording.log()))
        wanted = replayers if use_probe else 0
        probes = await asyncio.to_thread(probes_for, recording, used, facts, wanted)
        seats = [
            Seat.on(recording, used, store, facts, probes[number] if probes else None)
            for number in range(replayers)
        ]
        return await cls.over(recording, store, seats)

    @classmethod
    async def over(
        cls, recording: Recording, store: CheckpointStore, seats: Sequence[Seat]
    ) -> Self:
        """Open a history with `seats` not started yet; it ends them and closes `store`.

        One is started; the others are when somebody borrows them.
        """
        try:
            await seats[0].start()
            return cls(recording, store, Pool(seats), await MachineView.of(seats[0]))
        except BaseException:
            await end(seats)
            store.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what cursors do beside, and all processes. Safe to repeat."""
        while self._guests:
            await self._guests.pop()()
        await self.pool.close()
        self.store.close()

    def enter(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Have `leave` awaited before the processes end, for work a cursor has begun beside."""
        self._guests.add(leave)

    def left(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Forget a `leave`: its cursor has been closed."""
        self._guests.discard(leave)

    @property
    def end(self) -> int:
        """The last position."""
        return self.recording.end

    @property
    def can_search(self) -> bool:
        """Whether break- and watchpoints can be looked for: the probe is there."""
        return self.pool.seats[0].probe is not None

    def stored(self, position: int, address: int, count: int) -> bytes | None:
        """Return physical memory out of the checkpoint at `position`, without a machine.

        None where there is no checkpoint, and for what is not RAM at all positions.
        """
        ram, offset = self.store.ram_at(position), self.view.offset(address, count)
        return None if ram is None or offset is None else bytes(ram.read(offset, count))

    async def physical_at(
        self, position: int, address: int, count: int, among: Sequence[Seat] = ()
    ) -> bytes:
        """Return physical memory at any position, preferably out of a machine of `among`."""
        wanted = Range(address, count, "physical")
        check_position(position, self.end)

        async def look(seat: Seat) -> bytes:
            await seat.go(position)
            return await read_parked(seat, self.view, {}, wanted)

        return await self.pool.work(look, among)

    # -- searches ----------------------------------------------------------------------

    def scan(self, stops: Stops) -> Scan:
        """Return what searches for `stops` have found."""
        scan = self._scans.pop(stops, None) or Scan()
        self._scans[stops] = scan
        if len(self._scans) > SCANS_KEPT:
            self._scans.pop(next(iter(self._scans)))
        return scan

    def search(
        self,
        stops: Stops,
        scan: Scan | None = None,
        viewer: Seat | None = None,
        progress: Progress | None = None,
    ) -> search.Search:
        """Return a search that keeps what it finds in `scan`.

        Where its answer is as good as known, `viewer` goes there meanwhile.
        """
        kept = Scan() if scan is None else scan
        return search.Search(self.pool, stops, kept, self.moments, self.hints, progress, viewer)

    async def all_hits(self, stops: Stops, start: int, stop: int) -> list[Hit]:
        """Return all hits of `stops` at positions from `start` to before `stop`, in order."""
        return await search.all_hits(self.pool, stops, start, stop)

    async def newest_hits(self, stops: Stops, start: int, stop: int) -> tuple[list[Hit], bool]:
        """Return hits of `stops` from `start` to before `stop`, in order, and if they are all.

        Takes one replay; of many, the newest are returned.
        """
        return await search.newest_hits(self.pool, stops, start, stop)

    async def trace(self, start: int, stop: int) -> Trace:
        """Return what happened at positions from `start` to before `stop`.

        Where there were more memory accesses than the probe keeps, the trace begins later.
        Raises UsageError for more than LONGEST positions.
        """
        return await self.pool.work(lambda seat: trace(seat, start, stop))

    async def taken(self, position: int) -> list[Trap]:
        """Return the interrupts and exceptions taken at `position`; see `taken.traps_at`."""
        if not self.facts.is_delivery(position):
            return []
        if position not in self._taken:
            found = await self.pool.work(lambda seat: traps_at(seat, position))
            self._taken = {position: found}
            return found
        return self._taken[position]

    async def addresses(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return the linear addresses of the instructions from `start` to before `stop`.

        Raises UsageError for more than LONGEST positions.
        """
        return await self.pool.work(lambda seat: addresses(seat, start, stop))
