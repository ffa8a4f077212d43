"""Run a machine under record and keep the result, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from retrograde.commandline.arguments import UserMachine, parse_arguments
from retrograde.commandline.command import INITIAL, Chardev, Launch, RamFile, record_command
from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import (
    EnvironmentLacks,
    QemuDied,
    QemuError,
    QemuTimeout,
    RetrogradeError,
    UsageError,
)
from retrograde.machine.image import NO_SPACE, create_image
from retrograde.machine.monitor import ANSWER_SECONDS, Monitor
from retrograde.machine.process import (
    DEFECTS,
    EXIT_SECONDS,
    QemuProcess,
    finished,
    input_path,
)
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import LOADING, quirks_for
from retrograde.machine.scheduling import Policy, must_take_processors, require_scheduler
from retrograde.machine.semihosting import must_be_confined
from retrograde.machine.switchboard import Switchboard
from retrograde.machine.wiring import Wiring, fd_path
from retrograde.recording.bundle import (
    CONSOLE,
    IMAGE,
    INPUTS,
    LOG,
    SCHEDULE,
    Draft,
    Recording,
    disk_errors_named,
    now,
    write_manifest,
)
from retrograde.recording.folder import open_regular
from retrograde.recording.machinespec import Shift
from retrograde.recording.manifest import (
    Ending,
    Manifest,
    QemuIdentity,
    Ram,
    format_of,
)
from retrograde.recording.rrlayout import LAYOUTS, known_qemus
from retrograde.version import __version__

LOOK_SECONDS = 0.5
"""How often a recording machine is looked at: position for the user, stderr for trouble."""

WRITE_ERROR = "replay write error"
"""QEMU says this once when it cannot write its log, and goes on (replay-internal.c)."""

FULL_BYTES = 1 << 20
"""A disk with less than this is full: the smallest machine's snapshot has 0.6 MB."""

Progress = Callable[[int], None]
Warn = Callable[[str], None]


async def record(
    output: str | Path,
    arguments: Sequence[str],
    *,
    target: str = "x86_64",
    program: str | None = None,
    shift: Shift | None = None,
    timeout: float | None = None,
    policy: Policy | None = None,
    without_quirks: frozenset[str] = frozenset(),
    copy_disks: bool = False,
    console: socket.socket | None = None,
    vnc: str = "",
    copies: Mapping[str, Sequence[int]] | None = None,
    stdout: int | None = None,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> Recording:
    """Record the machine that QEMU would run with `arguments`, and return the recording.

    `shift` is the clock (2**shift ns an instruction); an -icount in the arguments goes before it,
    and without either it is `clock.usual_shift`.
    `policy` decides on the turns that several processors take, Policy() if None.
    Ends when the guest does, after `timeout` seconds, when `stop` is set or the task is
    cancelled; each gives a complete recording. `console` is QEMU's end of a connected
    socket pair: what comes in through it is typed at the first serial port, whose
    output also goes there. `copy_disks` keeps large files in the recording instead of links to
    them. `vnc` is where QEMU shows the screen and takes keys and mouse, as
    for its own -vnc. `copies` are descriptors that get what another port writes, by its name
    (`MachineSpec.ports`). `stdout` is QEMU's standard output, where a guest writes
    that opens its console by semihosting, past all that is recorded. A QEMU that does not
    answer within `answer_seconds` is taken for hung.

    Raises UsageError (ArgumentRefused) for arguments that QEMU or record/replay do not
    accept, EnvironmentLacks without a usable QEMU or disk space, QemuDied when QEMU
    crashes and QemuTimeout when it hangs; the recording is then kept, marked
    incomplete, unless the machine never ran.
    """
    qemu = Qemu.find(target, program)
    machine = parse_arguments(arguments, target, shift)
    tell = warn or (lambda _text: None)
    for note in machine.notes:
        tell(note)
    if policy and machine.spec.vcpus == 1:
        raise UsageError("One processor needs no schedule.", "Leave it out, or add -smp N.")
    draft = Draft.create(output)
    if draft.aside:
        tell(f"what a killed recorder left in {draft.path.name} is kept as {draft.aside}")
    try:
        _take_inputs(draft, machine, copy_disks)
        recorder = _Recorder(
            qemu, machine, draft, policy or Policy(), without_quirks, answer_seconds, tell
        )
        process = await recorder.start(console, vnc, copies or {}, stdout)
    except BaseException:
        draft.discard()
        raise
    recording = await recorder.run(process, timeout, stop or asyncio.Event(), progress)
    return await recorder.tried(recording)


def _take_inputs(draft: Draft, machine: UserMachine, copy: bool) -> None:
    """Take in the machine's files, large ones as copies if `copy` is set, and its folders."""
    for number, path in enumerate(machine.files):
        folder = machine.folders.get(number)
        if folder is None:
            draft.add_input(path, copy=copy)
        else:
            draft.add_made(path.name, folder.write_image)


class _Recorder:
    """One run of a machine under record."""

    def __init__(
        self,
        qemu: Qemu,
        machine: UserMachine,
        draft: Draft,
        policy: Policy,
        without_quirks: frozenset[str],
        answer_seconds: float,
        warn: Warn,
    ) -> None:
        if qemu.log_version not in LAYOUTS:
            raise EnvironmentLacks(
                f"{qemu.path.name} {qemu.full_version} writes logs of version "
                f"{qemu.log_version:#010x}, which retrograde does not know.",
                f"Record with another QEMU. Those with logs that are known: {known_qemus()}.",
            )
        board = qemu.machine_type(machine.board or qemu.default_board)
        if board is None:
            raise UsageError(
                f"{qemu.path.name} has no machine called {machine.board!r}.",
                f"`{qemu.path.name} -M help` lists them.",
            )
        several = machine.spec.vcpus > 1
        if several:
            must_take_processors(qemu, board, machine.spec.vcpus)
        self._library = require_scheduler(qemu.path) if several else None
        self._policy = policy
        self._qemu = qemu
        self._draft = draft
        self._machine = machine
        self._answer_seconds = answer_seconds
        self._warn = warn
        self._leaves_untried = LOADING.name in without_quirks
        self._began = time.monotonic()
        self._has_started = False
        models = list(machine.spec.models())
        self._quirks = quirks_for(qemu, board.name, without_quirks, models)
        self._inputs = [entry.name for entry in draft.inputs]
        ram_bytes = machine.ram_bytes or qemu.default_ram_bytes(board.name)
        shared = board.ram_id != "" and not machine.own_ram
        if not shared:
            warn(
                "QEMU keeps the RAM of this machine to itself: `debug` goes both ways and reads "
                "it more slowly, `index` makes no tables of what ran."
            )
        self._manifest = Manifest(
            tool=f"retrograde {__version__}",
            created=now(),
            qemu=QemuIdentity(
                version=qemu.full_version, sha256=qemu.digest, log_version=qemu.log_version
            ),
            format=format_of(machine.spec),
            machine=machine.spec,
            ram=Ram(bytes=ram_bytes, shared=shared),
            snapshot=any(quirk.keeps_snapshot for quirk in self._quirks),
            scheduler=policy.noted() if several else msgspec.UNSET,
            quirks=tuple(quirk.name for quirk in self._quirks),
            inputs=tuple(draft.inputs),
        )
        draft.write_manifest(self._manifest)
        self._confined = must_be_confined(machine.spec, qemu)
        self._wiring = Wiring(ram_bytes if shared else None)
        self._switchboard: Switchboard | None = None

    async def start(
        self,
        console: socket.socket | None,
        vnc: str,
        copies: Mapping[str, Sequence[int]],
        stdout: int | None,
    ) -> QemuProcess:
        """Start QEMU; gives back all it took when that fails."""
        try:
            argv = record_command(self._machine.spec, self._launch(console, vnc, copies))
            process = await QemuProcess.start(
                argv,
                pass_fds=self._wiring.pass_fds,
                inputs=self._draft.path / INPUTS,
                confined=self._confined,
                stdout=stdout,
            )
        except BaseException:
            self._wiring.close()
            if self._switchboard:
                self._switchboard.close()
            raise
        self._wiring.release_theirs()
        if self._switchboard:
            self._switchboard.release()
        self._began = time.monotonic()
        return process

    async def run(
        self,
        process: QemuProcess,
        timeout: float | None,
        stop: asyncio.Event,
        progress: Progress | None,
    ) -> Recording:
        """Run the machine to its end or ours, and finish the recording."""
        _import_what_reads_logs()
        monitor = Monitor(process, self._answer_seconds, shift=self._machine.spec.shift)
        trouble: QemuError | None = None
        ending: Ending | None = None
        try:
            ending = await self._watch(process, monitor, timeout, stop, progress)
        except QemuError as error:
            trouble = error
        except BaseException:  # cancelled, or `progress` failed: still a recording
            with contextlib.suppress(RetrogradeError):
                await finished(self._conclude(process, monitor, "interrupted", None))
            raise
        return await self._conclude(process, monitor, ending, trouble)

    async def tried(self, recording: Recording) -> Recording:
        """Try whether the machine can be loaded, and note in the recording when it cannot."""
        from retrograde.machine.loadtrial import why_not_loaded

        if self._leaves_untried or any(quirk.no_checkpoints for quirk in self._quirks):
            return recording
        try:
            why = await why_not_loaded(recording, self._qemu)
        except QemuError as error:
            self._warn(f"the recording was tried and all but `replay` may fail: {error.what}")
            return recording
        except (OSError, RetrogradeError):
            return recording  # no room to try it says nothing of the machine
        if not why:
            return recording
        self._warn(
            f"a snapshot of this machine cannot be loaded ({why.rstrip('.')}): going back "
            "will replay from the start."
        )
        manifest = recording.manifest
        quirks = (*manifest.quirks, LOADING.name)
        write_manifest(recording.path, msgspec.structs.replace(manifest, quirks=quirks))
        return Recording.open(recording.path)

    def _launch(
        self, console: socket.socket | None, vnc: str, copies: Mapping[str, Sequence[int]]
    ) -> Launch:
        folder, wiring, ram = self._draft.path, self._wiring, self._wiring.ram
        with disk_errors_named(folder):
            (folder / CONSOLE).touch()
            with (folder / IMAGE).open("w+b") as image:
                create_image(image.fileno())
                vmstate = GuardedImage(wiring.lend(image), "qcow2", IMAGE)
            layers = self._layers()
            overlays = [
                wiring.overlay(layers[disk.layers[0].input])
                for disk in self._machine.spec.overlaid()
            ]
            if self._confined:
                with (folder / LOG).open("wb") as log:
                    wiring.lend(log)  # a file it may write
            scheduler = self._scheduler()
        ports = self._ports(console, copies)
        return Launch(
            program=str(self._qemu.path),
            inputs=[input_path(name) for name in self._inputs],
            layers=layers,
            vmstate=vmstate,
            log=str(folder / LOG),
            monitor_fd=wiring.monitor_fd,
            overlays=overlays,
            console=ports.get("console") or self._console(console),
            ports=ports,
            ram=RamFile(fd_path(ram.fd), ram.size) if ram else None,
            snapshot=INITIAL if self._manifest.snapshot else None,
            sandbox=self._qemu.has_sandbox,
            machine_options=[q.machine_option for q in self._quirks if q.machine_option],
            globals=[q.global_option for q in self._quirks if q.global_option],
            live_netdevs=self._machine.live_netdevs,
            vnc=vnc,
            scheduler=scheduler,
        )

    def _scheduler(self) -> str:
        """Return the plugin that has several processors take turns, "" where there is one."""
        if self._library is None:
            return ""
        with (self._draft.path / SCHEDULE).open("wb") as file:
            fd = self._wiring.lend(file)
        return self._policy.plugin(self._library, self._machine.spec.vcpus, fd)

    def _console(self, live: socket.socket | None) -> Chardev:
        """Return where the console of a machine without other ports goes."""
        kept = str(self._draft.path / CONSOLE)
        if live is None:
            return Chardev.file(kept)
        fd = self._wiring.inherit(live.fileno())
        return Chardev("socket", (("fd", str(fd)), ("logfile", kept)))

    def _ports(
        self, console: socket.socket | None, copies: Mapping[str, Sequence[int]]
    ) -> dict[str, Chardev]:
        """Return where the ports go whose order is kept; none where there is the console only."""
        spec = self._machine.spec
        if not spec.keeps_ports():
            return {}
        with disk_errors_named(self._draft.path):
            self._switchboard = Switchboard(spec.ports(), self._draft.path, console, copies)
        ends = self._switchboard.ends
        return {
            name: Chardev.socket(self._wiring.inherit(end.fileno())) for name, end in ends.items()
        }

    def _layers(self) -> dict[int, GuardedImage]:
        """Open the images of the machine's disks, by number of the input."""
        opened: dict[int, GuardedImage] = {}
        for layer in (layer for disk in self._machine.spec.disks() for layer in disk.layers):
            path = self._draft.path / INPUTS / self._inputs[layer.input]
            with open_regular(path, follow=True) as file:
                opened[layer.input] = self._wiring.layer(file, layer.format, str(path))
        return opened

    async def _watch(
        self,
        process: QemuProcess,
        monitor: Monitor,
        timeout: float | None,
        stop: asyncio.Event,
        progress: Progress | None,
    ) -> Ending | None:
        """Wait for the end; return how it came, None when the log knows."""
        until = self._began + timeout if timeout else None
        starting = asyncio.ensure_future(monitor.connect(self._wiring.monitor_link))
        gone = asyncio.ensure_future(process.wait())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while True:
                pause = LOOK_SECONDS
                if until is not None:
                    pause = max(0.0, min(pause, until - time.monotonic()))
                awaited = {gone, stopped} if self._has_started else {gone, stopped, starting}
                await asyncio.wait(awaited, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                ending = self._told(stopped.done(), until, process)
                if ending and not self._has_started:
                    # It is ended as it should be once it listens, where it ever does.
                    seconds, first = EXIT_SECONDS + monitor.deaf_seconds, asyncio.FIRST_COMPLETED
                    await asyncio.wait({starting, gone}, timeout=seconds, return_when=first)
                if not self._has_started and (starting.done() or gone.done()):
                    await starting
                    self._has_started = True
                    process.settle()
                if ending or gone.done():
                    return None if gone.done() else ending
                if progress and self._has_started:
                    progress(await _position(monitor))
        finally:
            for waiting in (starting, gone, stopped):
                waiting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    def _told(self, is_stopped: bool, until: float | None, process: QemuProcess) -> Ending | None:
        """Return why the recording is to end now; None when it is not."""
        if is_stopped:
            return "interrupted"
        if until is not None and time.monotonic() >= until:
            return "timeout"
        return "killed" if WRITE_ERROR in process.stderr() else None

    async def _conclude(
        self,
        process: QemuProcess,
        monitor: Monitor,
        ending: Ending | None,
        trouble: QemuError | None,
    ) -> Recording:
        """End QEMU and keep what it recorded; raise what went wrong, if anything did."""
        from retrograde.machine.ending import has_run

        hung = isinstance(trouble, QemuTimeout)
        status = await _end(process, monitor, hung=hung, answers=self._has_started)
        died = process.died("recording")
        process.close()
        self._wiring.close()
        full = WRITE_ERROR in died.detail
        try:
            if self._switchboard:
                self._switchboard.close()
            ran = has_run(self._draft.path / LOG, self._qemu.log_version, status)
            state = "killed" if full else ending
            recording = self._finish(state, status, died.detail) if ran else None
        except (OSError, RetrogradeError) as failed:
            raise EnvironmentLacks(
                f"The recording cannot be finished; it is kept as {self._draft.path}.",
                "It replays under that name, and the next `record` of this name moves it aside.",
                str(failed),
            ) from failed
        if recording is None:
            why = self._never_ran(status, trouble or (self._idle(died) if ending else died))
            self._draft.discard()
            raise why
        if recording.complete:
            if died.detail.strip():
                self._warn(f"{process.name} said: {died.detail.strip()}")
            return recording
        kept = f"What was recorded is kept, marked incomplete: {recording.path}"
        if full:
            raise EnvironmentLacks(
                f"{recording.path.parent} cannot take more of the log: writing it failed.",
                f"Free some space and record again. {kept}",
                died.detail,
            )
        error = trouble if isinstance(trouble, QemuTimeout) else died
        raise type(error)(error.what, kept, died.detail) from trouble

    def _idle(self, died: QemuDied) -> QemuTimeout:
        """Make the error of a QEMU that was ended, as asked, before the guest ran at all."""
        seconds = time.monotonic() - self._began
        what = f"{self._qemu.path.name} ran not one instruction in {seconds:.1f} s."
        return QemuTimeout(what, DEFECTS, died.detail)

    def _never_ran(self, status: int, error: QemuError) -> RetrogradeError:
        """Say why QEMU never ran the machine: mostly it did not like the arguments."""
        # QEMU says "Input/output error" when its snapshot does not fit.
        free = shutil.disk_usage(self._draft.path.parent).free
        if NO_SPACE in error.detail or (status == 1 and free < FULL_BYTES):
            return EnvironmentLacks(
                f"{self._draft.path.parent} has no space for a recording.",
                "Free some space or choose another place.",
                error.detail,
            )
        if status == 1:  # QEMU's answer to a command line it rejects
            return UsageError(
                f"{self._qemu.path.name} does not accept this machine.",
                "Its own words follow; check the QEMU arguments.",
                error.detail,
            )
        return error

    def _finish(self, ending: Ending | None, status: int, stderr: str) -> Recording:
        """Write the manifest of what was recorded, whole or not."""
        from retrograde.machine.ending import exited, own_ending
        from retrograde.recording.rrlog import RrLog
        from retrograde.recording.rrshutdown import put_behind_its_instructions

        path, version = self._draft.path / LOG, self._qemu.log_version
        log = RrLog.open(path, unfinished=version)
        finalized = log.finalized
        complete = finalized and ending != "killed" and status >= 0
        log = dataclasses.replace(log, salvage=not complete)
        if any(quirk.early_shutdown for quirk in self._quirks):
            put_behind_its_instructions(log)
        summary = log.summary()
        why = ending or own_ending(summary.shutdown, status, stderr, may_exit=self._confined)
        by_exit = self._confined and not ending and exited(summary.shutdown, status, stderr)
        return self._draft.finish(
            msgspec.structs.replace(
                self._manifest,
                complete=complete,
                ending=why,
                end=summary.end - by_exit,
                seconds=round(time.monotonic() - self._began, 3),
                status=status,
                events={kind.name.lower(): count for kind, count in summary.counts.items()},
            )
        )


def _import_what_reads_logs() -> None:
    """Load the modules the end needs, numpy among them, while the machine already runs."""
    import retrograde.machine.ending  # noqa: F401


async def _position(monitor: Monitor) -> int:
    return int((await monitor.execute("query-replay"))["icount"])


async def _end(process: QemuProcess, monitor: Monitor, *, hung: bool, answers: bool) -> int:
    """End QEMU and return its exit status.

    So that it finishes its log it is asked over QMP, if it `answers`, then by signal; at last,
    or at once when it is known to be `hung`, it is killed.
    """
    if process.returncode is None and answers and not hung:
        with contextlib.suppress(QemuError):
            await monitor.execute("quit", seconds=EXIT_SECONDS)
            await process.wait(EXIT_SECONDS)
    if process.returncode is None and not hung:
        process.terminate()
        with contextlib.suppress(QemuError):
            await process.wait(EXIT_SECONDS)
    await process.kill()
    await monitor.close()
    return process.returncode or 0
