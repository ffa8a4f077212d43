"""A replayer that can go to any position: the checkpoints' user.

A seat holds one QEMU process and moves it: forward by running, backward by loading the
checkpoint before the target, whichever is cheaper by what both have cost so far. It may
carry a probe. When QEMU dies under it, it starts a new one and goes on: a position means
the same in every process.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import NamedTuple, Self, TypeVar

from retrograde.errors import InternalError, QemuDied, QemuError, QemuKilled, QemuRefused
from retrograde.machine.parked import Parked, Stub
from retrograde.machine.probe.probe import Probe
from retrograde.machine.qemu import Qemu
from retrograde.machine.quiet import RequestsInFlight
from retrograde.machine.ram import GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.machine.romlist import pages_reset_writes
from retrograde.machine.snapshot import Fill, Snapshot
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.pages import RamImage, Table
from retrograde.timeline.quieting import run_until_quiet
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Checkpoint, SavedImages

Progress = Callable[[int], None]
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

MARK_BYTES = 100_000_000
"""Memory of ours that marks may take."""

LOAD_SECONDS = 0.05
RATE = 100e6
"""First guesses of what a load costs and of instructions a second; measured from then on."""

UNREACHED = -1
"""In place of a number of steps: none stops there."""

RACES = 20
"""How often a position is gone to, to have a race in QEMU end as it is to end."""

REVIVALS = 2
"""How often a dead QEMU is replaced within one piece of work before that is an error."""


Launch = Callable[[SavedImages | None], Awaitable[Parked]]
"""Starts a process, on these images or on the recording's own, parked at position 0."""


class _Mark(NamedTuple):
    """A checkpoint of this process: the name of its snapshot, and its RAM."""

    tag: str
    image: RamImage


class Seat:
    """One replayer with checkpoints. Made by `take`; always ended by `close`."""

    def __init__(
        self,
        recording: Recording,
        store: CheckpointStore,
        facts: LogFacts,
        probe: Probe | None,
        launch: Launch,
    ) -> None:
        self.recording = recording
        self.facts = facts
        self.store = store
        self.probe = probe
        self._launch = launch
        self._replayer: Parked | None = None
        self._load_seconds = LOAD_SECONDS
        self._rate = RATE
        self._marks: dict[int, _Mark] = {}
        self._marks_made = 0
        self._steps_to: dict[int, int] = {}
        self._reset_pages: list[int] | None = None
        self._adrift = False
        self._code_kept = False
        self._keeps_code: bool | None = None
        self._stands_at: int | None = None
        self._is_closed = False
        self._died_of: Checkpoint | None = None

    @classmethod
    def on(
        cls,
        recording: Recording,
        qemu: Qemu,
        store: CheckpointStore,
        facts: LogFacts,
        probe: Probe | None = None,
    ) -> Self:
        """Return a seat that will have `qemu` replay `recording`, with `probe` in it."""
        plugin, fds = (probe.argument, (probe.fd,)) if probe else ("", ())

        async def launch(images: SavedImages | None) -> Parked:
            return await Replayer.start(
                recording, qemu, images=images, plugin=plugin, plugin_fds=fds
            )

        return cls(recording, store, facts, probe, launch)

    @classmethod
    async def take(
        cls,
        recording: Recording,
        qemu: Qemu,
        store: CheckpointStore,
        facts: LogFacts,
        probe: Probe | None = None,
    ) -> Self:
        """Start a process on `recording`, parked at position 0."""
        seat = cls.on(recording, qemu, store, facts, probe)
        await seat.start()
        return seat

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def position(self) -> int:
        """Where the machine is parked."""
        return self._parked.position

    @property
    def ram(self) -> GuestRam:
        """Guest RAM at `position`, in place."""
        return self._parked.ram

    @property
    def pid(self) -> int:
        """Process id of QEMU, which changes when a dead one is replaced."""
        return self._parked.pid

    async def gdb(self) -> Stub:
        """Return the link to the gdbstub, for looking and stepping."""
        return await self._parked.gdb()

    async def human(self, line: str) -> str:
        """Run a command of QEMU's human monitor that only looks."""
        return await self._parked.human(line)

    async def go(
        self, position: int, *, load: bool = False, progress: Progress | None = None
    ) -> None:
        """Park the machine at `position`.

        `load` insists on coming from a checkpoint, which is what makes a newly armed
        probe take effect. A checkpoint that does not load as it was saved is dropped.
        Raises PositionError when the replay does not get there.
        """
        if position == self._stands_at and not load:
            return  # where an interrupt is taken, and at the end, getting there is dear
        is_lost = self._adrift
        with self.unsettled():
            if is_lost:
                await self._start_before(position)
            await self._go(position, load and not is_lost, progress)
        if is_lost:
            self._adrift = False
        self._stands_at = position

    async def surviving(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do `work`, anew in a new process when QEMU dies under it.

        `work` must begin with `go`.
        """
        for _ in range(REVIVALS):
            with contextlib.suppress(QemuDied):
                return await work()
            self._adrift = True
        return await work()

    @contextlib.contextmanager
    def unsettled(self) -> Iterator[None]:
        """Hold what must not be left half done.

        After an error or a cancellation inside, nobody knows the machine's state: the
        next `go` starts a new process.
        """
        before, self._adrift = self._adrift, True
        self._stands_at = None
        yield
        self._adrift = before

    @contextlib.asynccontextmanager
    async def short_blocks(self) -> AsyncIterator[None]:
        """Have QEMU run one instruction a block: in such blocks all registers are right."""
        with self.unsettled():
            await self._parked.short_blocks(True)
            yield
            await self._parked.short_blocks(False)

    async def run_on(self, position: int, progress: Progress | None = None) -> None:
        """Run forward to `position` without a shortcut: for a probe that must see it all.

        `position` must have one state only (LogFacts.clear_from).
        """
        with self.unsettled():
            await self._run_to(position, progress)

    async def stepped(self) -> None:
        """Learn where single steps through `gdb` have taken the machine."""
        await self._parked.ask_position()

    async def mark(self) -> RamImage:
        """Make a checkpoint here that lasts as long as the process; return its RAM.

        The newest few are kept, within MARK_BYTES of our memory. Where QEMU cannot save
        its state, for disk requests in flight, the RAM alone is returned.
        """
        position = self.position
        if position not in self._marks:
            checkpoint = self.store.before(position)
            table = self.store.table(checkpoint) if checkpoint else self.store.pages.empty_table()
            image = self.ram_image(table)
            parked = self._parked
            if not parked.can_load or parked.must_prove or self._keeps_code:
                return image
            self._marks_made += 1  # no name is used twice (docs/quirks.md)
            tag = f"mark{self._marks_made}"
            try:
                await parked.save(tag)
            except QemuRefused:
                return image
            self._marks[position] = _Mark(tag, image)
            while sum(kept.image.size for kept in self._marks.values()) > MARK_BYTES:
                self._marks.pop(next(iter(self._marks)))
        return self._marks[position].image

    def ram_image(self, table: Table) -> RamImage:
        """Keep the RAM here as its difference from `table`."""
        return RamImage.of(self.store.pages, table, self.ram.array(), self.ram.present())

    async def close(self) -> None:
        """End the process, for good. Safe to repeat."""
        self._is_closed = True
        await self._stop()

    async def _stop(self) -> None:
        if self._replayer is not None:
            await self._replayer.close()
            self._replayer = None

    @property
    def _parked(self) -> Parked:
        if self._replayer is None:
            raise QemuDied("This replayer was closed.")
        return self._replayer

    async def start(self) -> None:
        """Start a process, parked at position 0."""
        await self._stop()
        self._marks.clear()
        try:
            self._replayer = await self._launch(self.store.images)
        except QemuKilled:
            raise  # which says nothing of the images
        except QemuError:
            if self.store.images is None:
                raise
            self._replayer = await self._launch(None)
            self.store.drop_all()
        if self._is_closed:  # while somebody was still at work with it
            await self._stop()
            raise QemuDied("This replayer was closed.")
        self._code_kept = False
        manifest = self.recording.manifest
        if self._reset_pages is None and manifest.ram.seen and not any(manifest.machine.disks()):
            # Controllers of disks may write to RAM when they are reset, too.
            target = manifest.machine.target
            self._reset_pages = await pages_reset_writes(self.human, target)

    async def _start_before(self, position: int) -> None:
        """Start a process and have it stand at the last checkpoint at or before `position`."""
        await self.start()
        checkpoint = self.store.before(position)
        if checkpoint is not None:
            await self._load_checkpoint(checkpoint)

    async def _go(self, position: int, load: bool, progress: Progress | None) -> None:
        try:
            if self._replayer is None or self._parked.at_end or self._parked.lost:
                raise _CannotLoad
            await self._approach(position, load)
        except _CannotLoad:
            await self._start_before(position)
        if self._code_kept and self._keeps_code is None:
            # If it does, each load has a process of its own from now on.
            self._keeps_code = await self._parked.keeps_code()
            await self._start_before(position)
        # At the end of the log nothing is taken any more, and no step may be (machine.gdb.steps).
        if self.facts.is_delivery(position) and position < self.recording.end:
            await self._arrive_delivered(position, progress)
        else:
            await self._run_to(position, progress)

    async def _approach(self, position: int, load: bool) -> None:
        """Load what is nearest before `position`, if it must be or that is cheaper.

        Raises _CannotLoad where that takes a new process.
        """
        checkpoint = self.store.before(position)
        mark = max((at for at in self._marks if at <= position), default=-1)
        nearest = max(mark, checkpoint.position if checkpoint else -1)
        if nearest >= 0 and (load or self._loading_is_cheaper(position, nearest)):
            if mark == nearest:
                kept = self._marks[mark]
                await self._load(Snapshot(kept.tag, mark, *self._filling(kept.image)))
            elif checkpoint is not None:
                await self._load_checkpoint(checkpoint)
        elif load or position < self.position:
            raise _CannotLoad

    async def _run_to(self, position: int, progress: Progress | None) -> None:
        began, start = time.monotonic(), self.position
        await self._parked.run_to(position, progress)
        self._learn_rate(position - start, time.monotonic() - began)

    async def _arrive_delivered(self, position: int, progress: Progress | None) -> None:
        """Go to where an interrupt or exception is taken, and let it be taken.

        QEMU's break stops before or after that, as the race between its threads goes.
        So we step there from the last position with one state; taking it is a step that
        stays at the position, and only stepping on tells whether there is another.
        """
        clear = self.facts.clear_before(position)
        if self.position > clear:
            await self._go(clear, False, progress)
        else:
            await self._run_to(clear, progress)
        known = self._steps_to.get(position)
        if known is None:
            known = self._steps_to[position] = await self._count_steps(position)
            await self._go(clear, False, progress)
        if known == UNREACHED:
            await self._stop_delivered(position, progress)
            return
        gdb = await self.gdb()
        if known:
            await gdb.step_many(known)
        await self._parked.ask_position()

    async def _count_steps(self, position: int) -> int:
        """Step beyond `position`; return after how many steps the machine stood there last.

        UNREACHED when a step of more than one instruction led past it.
        """
        gdb, taken = await self.gdb(), 0
        while True:
            before = self.position
            await gdb.step()
            if await self._parked.ask_position() > position:
                return taken if before == position else UNREACHED
            taken += 1

    async def _stop_delivered(self, position: int, progress: Progress | None) -> None:
        """Go to where an interrupt is taken and no step stops, from a position before it.

        After an instruction that exits QEMU's loop by itself (s390x's lpswe) the stop of a
        single step is lost. A break stops before the interrupt is taken or after, as a race
        goes: the state from which a step leaves the position is the one after.
        """
        gdb, start = await self.gdb(), self.position
        after: bytes | None = None
        for _ in range(RACES):
            await self._run_to(position, progress)
            seen = await gdb.read_registers()
            while seen != after:
                await gdb.step()
                if await self._parked.ask_position() > position:
                    after = seen
                    break
                seen = await gdb.read_registers()
            else:
                return
            await self._go(start, False, progress)
        raise InternalError(f"The state after the interrupt at {position:_} was not met again.")

    def _loading_is_cheaper(self, position: int, nearest: int) -> bool:
        if position < self.position:
            return True
        return max(0, nearest - self.position) / self._rate > self._load_seconds

    async def _load(self, snapshot: Snapshot) -> None:
        began, parked = time.monotonic(), self._parked
        if not parked.can_load or (self._keeps_code and parked.has_loaded):
            raise _CannotLoad
        try:
            await parked.load(snapshot)
        except RequestsInFlight:
            if not await self._run_until_quiet():
                raise _CannotLoad from None
            await parked.load(snapshot)
        self._code_kept = parked.kept_code and not (self.probe and self.probe.drop_code())
        if snapshot.fill:
            self._load_seconds += (time.monotonic() - began - self._load_seconds) / 4

    async def _run_until_quiet(self) -> bool:
        """Run on to where the machine can be loaded, with no trace of that in the probe."""
        with self.probe.paused() if self.probe else contextlib.nullcontext(True) as is_paused:
            return is_paused and await run_until_quiet(self._parked, self.facts, self.recording.end)

    async def _load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint, or the one before when it is not as it was saved."""
        image = self.store.ram_of(checkpoint)
        try:
            await self._load(Snapshot(checkpoint.tag, checkpoint.position, *self._filling(image)))
        except QemuRefused:
            self.store.drop(checkpoint)
            await self._start_before(checkpoint.position)
            return
        except QemuKilled:
            raise  # which says nothing of the checkpoint
        except QemuDied:
            # Once may be for want of memory; twice it is what was loaded.
            if checkpoint == self._died_of:
                self.store.drop(checkpoint)
            self._died_of = checkpoint
            raise
        registers = await (await self.gdb()).read_registers()
        if registers.decode() == checkpoint.registers:
            return
        _log.warning("checkpoint at %d does not load as it was saved: dropped", checkpoint.position)
        self.store.distrust(checkpoint)
        await self._start_before(checkpoint.position)

    def _filling(self, image: RamImage) -> tuple[Fill, Fill | None]:
        """Return what makes RAM this image, and what undoes a reset's writes, where known."""

        def fill(ram: GuestRam) -> None:
            image.fill(ram.array(), ram.present())

        pages = self._reset_pages
        return fill, None if pages is None else lambda ram: image.put(ram.array(), pages)

    def _learn_rate(self, instructions: int, seconds: float) -> None:
        if instructions > 1_000_000 and seconds > 0:
            self._rate += (instructions / seconds - self._rate) / 4


class _CannotLoad(Exception):
    """The process at hand cannot be loaded: a new one is needed."""
