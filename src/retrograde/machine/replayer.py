"""One QEMU replaying a recording, parked at a known position.

A replayer goes forward by running and backward by loading a snapshot; it knows no
more history than that (the timeline does). It never uses QEMU's own `replay-seek`,
`bs` and `bc`: these choose a snapshot by position alone (replay/replay-debugging.c),
and we keep snapshots without RAM that only we can load.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Self

from retrograde.commandline.command import GDB_ID, INITIAL, replay_command
from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import InternalError, PositionError, QemuDied, QemuRefused, QemuTimeout
from retrograde.isa.isa import isa_for
from retrograde.machine.gdb.remote import GdbRemote
from retrograde.machine.image import drop_snapshot
from retrograde.machine.mipscounter import follows_branch, restart_counter
from retrograde.machine.monitor import Monitor
from retrograde.machine.process import QemuProcess, finished
from retrograde.machine.qemu import Qemu
from retrograde.machine.quiet import RequestsInFlight, is_queue_empty, rest
from retrograde.machine.quirks import quirks_named
from retrograde.machine.ram import GuestRam
from retrograde.machine.replaylaunch import Images, Saved, lay_out, open_images
from retrograde.machine.scheduling import must_be_alone
from retrograde.machine.semihosting import must_be_confined
from retrograde.machine.snapshot import Snapshot
from retrograde.machine.wiring import GdbListener, Wiring
from retrograde.recording.bundle import INPUTS, Recording
from retrograde.recording.folder import Folder

STALL_SECONDS = 20.0
"""A replay whose position has not moved for so long is stuck."""

LOOK_SECONDS = 0.5
"""How often a running replay is asked for its position."""

GDB_SNAPSHOT = "start_debugging"
"""What QEMU calls the snapshot it saves when gdb attaches (replay/replay-debugging.c)."""

TRIAL = "-trial"
"""Ends the name of a snapshot that was saved to see what loading it changes."""

START = "start"
"""A snapshot of position 0, without RAM where that is shared."""


class Replayer:
    """A QEMU process replaying `recording`. Made by `start`; always ended by `close`."""

    def __init__(
        self,
        recording: Recording,
        qemu: Qemu,
        process: QemuProcess,
        wiring: Wiring,
        images: dict[str, GuardedImage],
    ) -> None:
        self.recording = recording
        self._images = images
        self.process = process
        self.monitor = Monitor(process, shift=recording.manifest.machine.shift)
        self._wiring = wiring
        self._ram = wiring.ram or GuestRam(0)
        self._gdb: GdbRemote | None = None
        self._closing: asyncio.Future[None] | None = None
        self._position = 0
        self._at_end = False
        self._moving = False
        self._leaves_out_ram = False
        self._has_run = not recording.manifest.snapshot
        self._has_loaded = False
        self._has_flash: bool | None = None
        self._flushes = ""
        self._kept_code = False
        self._has_disks = any(recording.manifest.machine.disks())
        models = tuple(recording.manifest.machine.models())
        self._quirks = quirks_named(recording.manifest.quirks, models, qemu)
        self._start = INITIAL if recording.manifest.snapshot else START
        self._isa = isa_for(recording.manifest.machine.target)

    @classmethod
    async def start(
        cls,
        recording: Recording,
        qemu: Qemu,
        *,
        images: Saved | None = None,
        console_fd: int | None = None,
        gdb_listener: GdbListener | None = None,
        plugin: str = "",
        plugin_fds: Sequence[int] = (),
    ) -> Self:
        """Start QEMU on `recording`, parked at position 0.

        `images` are what `copy_images` filled a folder with, with more snapshots to go to than
        the recording's own of position 0. `console_fd` gets the guest's console,
        `gdb_listener` lets stock gdb attach in our place, `plugin` is the value of
        QEMU's -plugin and `plugin_fds` what it inherits. Raises QemuDied with QEMU's
        words when it does not start, UsageError for a recording of several processors when
        a plugin or stock gdb is to look at it, which would take them for one.
        """
        if plugin or gdb_listener:
            must_be_alone(recording)
        wiring = Wiring(recording.manifest.ram.bytes if recording.manifest.ram.shared else None)

        def prepare() -> tuple[Images, list[str], bool]:
            files = open_images(recording, wiring, images)
            launch = lay_out(
                recording,
                qemu,
                wiring,
                images=files,
                console_fd=console_fd,
                gdb_listener=gdb_listener,
                plugin=plugin,
            )
            argv = replay_command(recording.manifest.machine, launch)
            return files, argv, must_be_confined(recording.manifest.machine, qemu)

        try:
            files, argv, confined = await finished(asyncio.to_thread(prepare))
            process = await QemuProcess.start(
                argv,
                pass_fds=(*wiring.pass_fds, *plugin_fds),
                inputs=recording.path / INPUTS,
                confined=confined,
            )
        except BaseException:
            wiring.close()
            raise
        replayer = cls(recording, qemu, process, wiring, files.private)
        try:
            wiring.release_theirs()
            await replayer.monitor.connect(wiring.monitor_link)
            process.settle()
            await replayer._announce_nothing()
            await replayer.ask_position()
            if recording.manifest.snapshot:
                replayer._release_zeros()
            elif images is None and gdb_listener is None:
                await replayer._save_start()
        except BaseException:
            await replayer.close()
            raise
        return replayer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def position(self) -> int:
        """The position the machine is parked at."""
        return self._position

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self.process.pid

    @property
    def at_end(self) -> bool:
        """Whether the replay ran out of log: this process can then go nowhere."""
        return self._at_end

    @property
    def lost(self) -> bool:
        """Whether a movement was cancelled or failed, so that its position is unknown."""
        return self._moving

    @property
    def has_loaded(self) -> bool:
        """Whether a snapshot was loaded since the process was started."""
        return self._has_loaded

    @property
    def can_load(self) -> bool:
        """Whether a snapshot taken on the way loads as it was saved."""
        return not any(quirk.no_checkpoints for quirk in self._quirks)

    @property
    def must_prove(self) -> bool:
        """Whether snapshots are good at some positions only, and each has to prove itself."""
        return any(quirk.rearms for quirk in self._quirks)

    @property
    def kept_code(self) -> bool:
        """Whether the last load has, so far, left in use what QEMU had translated before.

        That code is of other memory, and without what a newly armed probe is to see. Most
        QEMUs drop it before they run the guest again; whether this one does `keeps_code` tells.
        """
        return self._kept_code

    async def keeps_code(self) -> bool:
        """Whether the last load left translated code in use for good (docs/quirks.md).

        Takes a step to see, so that afterwards the machine must be loaded again. If so, a
        process is good for one load: its first.
        """
        await (await self.gdb()).step()
        await self.ask_position()
        return await self._code_flushes() == self._flushes

    @property
    def ram(self) -> GuestRam:
        """Guest RAM in place: none of it where QEMU keeps it to itself (manifest.ram.seen)."""
        return self._ram

    async def gdb(self) -> GdbRemote:
        """Return the link to QEMU's gdbstub, opened on first use.

        QEMU saves a snapshot of its own then, unless the replay began with one
        (replay_gdb_attached in replay/replay-debugging.c): without RAM, so that it is a small one.
        """
        if self._gdb is None:
            await self._leave_out_ram(self._wiring.ram is not None)
            await self.monitor.human(f"gdbserver chardev:{GDB_ID}")
            self._gdb = await GdbRemote.connect(self._wiring.gdb_link)
        return self._gdb

    async def run_to(self, position: int, progress: Callable[[int], None] | None = None) -> None:
        """Run forward to `position`, at or ahead of here.

        Raises PositionError when the replay ends before it, QemuTimeout when the replay
        stops advancing, QemuDied when QEMU ends.
        """
        if position < self._position:
            raise InternalError(f"run_to({position:_}) is behind {self._position:_}.")
        if position == self._position:
            return  # a break at the current position is silently lost (docs/quirks.md)
        self._moving = True
        await self.monitor.execute("replay-break", {"icount": position})
        await self._run(progress)
        if self._position != position:
            raise PositionError(
                f"The replay ended at {self._position:_}, before {position:_}.",
                "The recording is shorter than it says: `retrograde verify` tells more.",
            )

    async def run_for(self, seconds: float, limit: int) -> None:
        """Run forward for about `seconds`, not beyond position `limit`."""
        if self._position >= limit:
            return
        self._moving = True
        await self.monitor.execute("replay-break", {"icount": limit})
        await self._run(None, seconds)

    async def run_to_end(self, progress: Callable[[int], None] | None = None) -> int:
        """Run to the end of the log and return the position there."""
        if not self._at_end:
            await self._run(progress)
        return self._position

    async def is_quiet(self) -> bool:
        """Whether nothing is in flight here that a snapshot would not hold (see quiet)."""
        return not self._has_disks or await is_queue_empty(self.monitor)

    async def may_save(self) -> bool:
        """Whether a snapshot made here can be a good one: not in a delay slot of MIPS."""
        return not self.must_prove or not await follows_branch(await self.gdb(), self._isa)

    async def save(self, tag: str) -> None:
        """Save the machine's state as snapshot `tag`, with its RAM unless that is shared.

        Runs nothing: the position stays. Raises RequestsInFlight where the machine is not
        quiet, QemuRefused when QEMU does not agree for another reason.
        """
        if any(quirk.inverts for quirk in self._quirks) and self._wiring.ram is not None:
            await self._save_inverted(tag)
        else:
            await self._save(tag)

    async def human(self, line: str) -> str:
        """Return what a command of QEMU's human monitor says; `line` must only look."""
        return await self.monitor.human(line)

    async def short_blocks(self, on: bool) -> None:
        """Have QEMU run one instruction a block, or as many as it likes (accel/tcg/monitor.c)."""
        await self.monitor.human(f"one-insn-per-tb {'on' if on else 'off'}")

    async def load(self, snapshot: Snapshot) -> None:
        """Load a snapshot.

        Raises RequestsInFlight, and changes nothing, where the machine is not quiet: what is
        in flight would end in the state that is loaded. Only a new process can go there.
        Raises QemuRefused where there is no such snapshot, or it is of another position; the
        machine is then in no state at all.
        """
        if self._at_end:
            raise InternalError("A replayer that reached the end of the log cannot go back.")
        await self.monitor.execute("replay-delete-break")
        await self._settle_flash()
        if not await self.is_quiet():
            raise RequestsInFlight(f"Disk requests are in flight at {self._position:_}.")
        self._moving = self._has_loaded = True
        if 0 < snapshot.position < self._position:
            await self._pass_start()
        if snapshot.fill:
            await finished(asyncio.to_thread(snapshot.fill, self.ram))
        await self._leave_out_ram(snapshot.fill is not None and self._wiring.ram is not None)
        self._flushes = await self._code_flushes()
        await self.monitor.obey(f"loadvm {snapshot.tag}")
        self._kept_code = await self._code_flushes() == self._flushes
        if again := snapshot.mend or snapshot.fill:
            await finished(asyncio.to_thread(again, self.ram))
        else:
            self._release_zeros()
        await self.ask_position()
        if self.must_prove:
            await restart_counter(await self.gdb(), self._isa)
        self._moving = self._has_run = False
        if self._position != snapshot.position:
            raise QemuRefused(
                f"Snapshot {snapshot.tag} is of {self._position:_}, not {snapshot.position:_}."
            )

    async def save_for_gdb(self) -> None:
        """Save position 0, where the machine stands, for QEMU's own reverse commands.

        They load the snapshot before, with the RAM in it, and the one that QEMU saves itself
        stands where gdb came in.
        """
        if not self.recording.manifest.snapshot:
            await self._leave_out_ram(False)
            await self.monitor.obey(f"savevm {INITIAL}")

    def copy_images(self, folder: Folder) -> None:
        """Copy the images with all snapshots saved so far; the machine must be parked."""
        # A replay that began without a snapshot saves one at the start, for gdb. Where it is
        # there already it is deleted first, which aborts QEMU 11.1 (docs/quirks.md).
        of_gdb = not self.recording.manifest.snapshot
        for name, image in self._images.items():
            with os.fdopen(os.dup(image.fd), "rb") as source, folder.create(name) as copy:
                source.seek(0)
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                if of_gdb:
                    drop_snapshot(copy.fileno(), GDB_SNAPSHOT)

    async def close(self) -> None:
        """End QEMU and give everything back, also when cancelled. Safe to repeat."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await finished(self._closing)

    async def _close(self) -> None:
        if self._gdb is not None:
            await self._gdb.close()
            self._gdb = None
        await self.process.kill()
        await self.monitor.close()
        self.process.close()
        self._wiring.close()
        self._ram.close()

    async def _run(
        self, progress: Callable[[int], None] | None, seconds: float | None = None
    ) -> None:
        """Run until the machine stops by itself, or is stopped after `seconds`."""
        self._moving = self._has_run = True
        said = self.process.stderr()
        try:
            self._at_end = await self._run_until_stop(progress, seconds) == "SHUTDOWN"
            await self.ask_position()
        except QemuDied:
            if not self._ended_as_recorded() or self.process.stderr() != said:
                raise
            self._at_end, self._position = True, self.recording.end
        self._moving = False

    async def _run_until_stop(
        self, progress: Callable[[int], None] | None, seconds: float | None
    ) -> str:
        self.monitor.forget_stops()
        await self.monitor.execute("cont")
        stopped = asyncio.ensure_future(self.monitor.stop_event())
        try:
            if seconds is not None and not (await asyncio.wait((stopped,), timeout=seconds))[0]:
                await self.monitor.execute("stop")
            await self._watch(stopped, progress)
            return stopped.result()
        finally:
            stopped.cancel()

    def _ended_as_recorded(self) -> bool:
        """Whether the guest ended QEMU, as it did while it was recorded.

        In QEMU 7.2 isa-debug-exit, in all of them semihosting, calls exit() itself, which
        -no-shutdown does not hold back. An error in the replay also exits, with a message.
        """
        manifest = self.recording.manifest
        return manifest.complete and self.process.returncode == manifest.status

    async def _watch(
        self, stopped: asyncio.Future[str], progress: Callable[[int], None] | None
    ) -> None:
        """Wait until the machine stops; raise QemuTimeout when it no longer advances."""
        clock = asyncio.get_running_loop().time
        seen, seen_at = -1, clock()
        while not (await asyncio.wait((stopped,), timeout=LOOK_SECONDS))[0]:
            position = await self._query()
            if position != seen:
                seen, seen_at = position, clock()
            elif clock() - seen_at > STALL_SECONDS:
                raise QemuTimeout(
                    f"The replay is stuck at {position:_}.",
                    "`retrograde doctor` tells which defects of this QEMU are known.",
                    detail=self.process.stderr(),
                )
            if progress:
                progress(position)

    async def _query(self) -> int:
        answer = await self.monitor.execute("query-replay", seconds=STALL_SECONDS)
        return int(answer["icount"])

    async def ask_position(self) -> int:
        """Ask QEMU for its position, for when somebody else moved the machine.

        What the guest had read from disks by then is in RAM afterwards.
        """
        self._position = await self._query()
        if self._has_disks and not self._at_end:
            await rest(self.process.pid)
        return self._position

    async def _save(self, tag: str) -> None:
        await self._leave_out_ram(self._wiring.ram is not None)
        answer = await self.monitor.human(f"savevm {tag}")
        if "Try once more later" in answer:
            raise RequestsInFlight(f"Disk requests are in flight at {self._position:_}.")
        if answer:
            raise QemuRefused(f"QEMU refused savevm at {self._position:_}: {answer.rstrip('.')}.")

    async def _save_inverted(self, tag: str) -> None:
        """Save `tag` so that it loads as the machine is, where loading changes something.

        It inverts MSR.ME on PowerPC: cpu_post_load in QEMU's target/ppc/machine.c inverts
        the msr to have all of it stored anew, and guests cannot store that bit. What is
        saved inverted loads as it was.
        """
        gdb, position, ram = await self.gdb(), self._position, self.ram.view().tobytes()

        def fill(ram_again: GuestRam) -> None:
            ram_again.view()[:] = ram

        trial = f"{tag}{TRIAL}"  # no snapshot is saved twice: that aborts QEMU 11.1
        before = await gdb.read_registers()
        await self._save(trial)
        await self.load(Snapshot(trial, position, fill))
        await self._save(tag)
        if await gdb.read_registers() != before:
            await self.load(Snapshot(tag, position, fill))

    def _release_zeros(self) -> None:
        """Have RAM sparse again behind a snapshot that holds RAM: we go through what is there."""
        if self._wiring.ram is not None:
            self._wiring.ram.release_zeros()

    async def _settle_flash(self) -> None:
        """Run a machine with flash memory before it is loaded a second time.

        Each load leaves a handler to be called when the machine runs; two loads in a row
        leave two, of which the first frees the second while the list is walked
        (postload_update_cb in QEMU's hw/block/pflash_cfi01.c): SIGSEGV in `cont`.
        """
        if self._has_run:
            return
        if self._has_flash is None:
            self._has_flash = "cfi.pflash01" in await self.monitor.human("info qtree")
        if self._has_flash and self.recording.manifest.machine.vcpus > 1:
            # gdb would step one processor, whosever turn it is.
            await self.run_to(await self.ask_position() + 1)
        elif self._has_flash:
            await (await self.gdb()).step()
        self._has_run = True

    async def _pass_start(self) -> None:
        """Load position 0, where a timer of the past would run (quirks.LATE_TIMER).

        A recording's own snapshot has RAM in it: it is saved without, the first time, which
        loads in a tenth of the time.
        """
        if not self._passes_start:
            return
        await self._leave_out_ram(self._start == START and self._wiring.ram is not None)
        await self.monitor.obey(f"loadvm {self._start}")
        if self._start == INITIAL and self._wiring.ram is not None:
            self._release_zeros()
            await self._save(START)
            self._start = START
        self._has_run = False
        await self._settle_flash()

    async def _save_start(self) -> None:
        """Save position 0, where the machine stands, if the way back leads through it."""
        if self._passes_start:
            await self._save(START)

    @property
    def _passes_start(self) -> bool:
        return any(quirk.through_start for quirk in self._quirks)

    async def _code_flushes(self) -> str:
        """Return how often QEMU dropped all translated code, as it says it (`info jit`)."""
        lines = (await self.monitor.human("info jit")).splitlines()
        return next((line for line in lines if line.startswith("TB flush count")), "")

    async def _announce_nothing(self) -> None:
        """Keep virtio-net from arming a timer, when loaded, that the recording never had.

        For recordings made without the remedy for that (quirks.ANNOUNCE): a loaded network
        card tells the network where it now lives, an event no log has.
        """
        await self.monitor.execute("migrate-set-parameters", {"announce-rounds": 0})

    async def _leave_out_ram(self, leave_out: bool) -> None:
        """Set whether savevm and loadvm skip shared RAM (migration/ram.c)."""
        if leave_out != self._leaves_out_ram:
            capability = {"capability": "x-ignore-shared", "state": leave_out}
            await self.monitor.execute("migrate-set-capabilities", {"capabilities": [capability]})
            self._leaves_out_ram = leave_out
