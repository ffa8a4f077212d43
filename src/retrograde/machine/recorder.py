"""Run a machine under record and keep the result, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from retrograde.errors import EnvironmentLacks, QemuDied, QemuError, RetrogradeError, UsageError
from retrograde.machine.arguments import UserMachine, parse_arguments
from retrograde.machine.command import Chardev, Launch, RamFile, record_command
from retrograde.machine.image import create_image
from retrograde.machine.monitor import Monitor
from retrograde.machine.process import EXIT_SECONDS, QemuProcess
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import quirks_for
from retrograde.machine.replayer import INITIAL
from retrograde.machine.wiring import Wiring, fd_path
from retrograde.recording.bundle import CONSOLE, IMAGE, LOG, Draft, Recording, now
from retrograde.recording.machinespec import Shift
from retrograde.recording.manifest import Ending, Manifest, QemuIdentity, Ram
from retrograde.recording.rrlog import RrLog
from retrograde.version import __version__

LOOK_SECONDS = 0.5
"""How often a recording machine is looked at: position for the user, stderr for trouble."""

WRITE_ERROR = "replay write error"
"""QEMU says this once when it cannot write its log, and goes on (replay-internal.c)."""

Progress = Callable[[int], None]
Warn = Callable[[str], None]


async def record(
    output: str | Path,
    arguments: Sequence[str],
    *,
    target: str = "x86_64",
    program: str | None = None,
    shift: Shift = 7,
    timeout: float | None = None,
    without_quirks: frozenset[str] = frozenset(),
    interactive: bool = False,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Recording:
    """Record the machine that QEMU would run with `arguments`, and return the recording.

    `shift` is the clock (2**shift ns an instruction) unless the arguments have -icount.
    Ends when the guest does, after `timeout` seconds, when `stop` is set or the task is
    cancelled; each gives a complete recording. `interactive` puts the first serial port
    on our standard input and output. Raises UsageError (ArgumentRefused) for arguments
    that QEMU or record/replay do not accept, EnvironmentLacks without a usable QEMU or
    disk space, QemuDied when QEMU crashes; the recording is then kept, marked
    incomplete.
    """
    qemu = Qemu.find(target, program)
    machine = parse_arguments(arguments, target, shift)
    if warn:
        for note in machine.notes:
            warn(note)
    draft = Draft.create(output)
    try:
        recorder = _Recorder(qemu, machine, draft, without_quirks)
    except BaseException:
        draft.discard()
        raise
    return await recorder.run(timeout, interactive, stop or asyncio.Event(), progress)


class _Recorder:
    """One run of a machine under record."""

    def __init__(
        self, qemu: Qemu, machine: UserMachine, draft: Draft, without_quirks: frozenset[str]
    ) -> None:
        board = qemu.machine_type(machine.board or qemu.default_board)
        if board is None:
            raise UsageError(
                f"{qemu.path.name} has no machine called {machine.board!r}.",
                f"`{qemu.path.name} -M help` lists them.",
            )
        self._qemu = qemu
        self._draft = draft
        self._machine = machine
        self._began = 0.0
        self._quirks = quirks_for(qemu, board.name, without_quirks)
        self._paths = [draft.path / "inputs" / draft.add_input(p).name for p in machine.files]
        ram_bytes = machine.ram_bytes or qemu.default_ram_bytes(board.name)
        shared = board.ram_id != "" and not machine.own_ram
        self._wiring = Wiring(ram_bytes if shared else None)
        self._manifest = Manifest(
            tool=f"retrograde {__version__}",
            created=now(),
            qemu=QemuIdentity(version=qemu.full_version, sha256=qemu.digest),
            machine=machine.spec,
            ram=Ram(bytes=ram_bytes, shared=shared),
            snapshot=not any(quirk.no_snapshot for quirk in self._quirks),
            quirks=tuple(quirk.name for quirk in self._quirks),
            inputs=tuple(draft.inputs),
        )
        draft.write_manifest(self._manifest)

    async def run(
        self,
        timeout: float | None,
        interactive: bool,
        stop: asyncio.Event,
        progress: Progress | None,
    ) -> Recording:
        """Run the machine to its end or ours, and finish the recording."""
        self._began = time.monotonic()
        process = await self._start(interactive)
        monitor = Monitor(process)
        trouble: QemuError | None = None
        ending: Ending | None = None
        try:
            ending = await self._watch(process, monitor, timeout, stop, progress)
        except UsageError:
            await _end(process, monitor)
            self._wiring.close()
            self._draft.discard()
            raise
        except QemuError as error:
            trouble = error
        except asyncio.CancelledError:
            await asyncio.shield(self._conclude(process, monitor, "interrupted"))
            raise
        return await self._conclude(process, monitor, ending, trouble)

    async def _conclude(
        self,
        process: QemuProcess,
        monitor: Monitor,
        ending: Ending | None,
        trouble: QemuError | None = None,
    ) -> Recording:
        """End QEMU and keep what it recorded; raise what went wrong, if anything did."""
        status = await _end(process, monitor)
        stderr = process.stderr()
        process.close()
        self._wiring.close()
        recording = self._finish(ending, status, time.monotonic() - self._began)
        if not recording.complete:
            raise self._incomplete(recording, status, stderr) from trouble
        return recording

    async def _start(self, interactive: bool) -> QemuProcess:
        """Start QEMU and talk to it; UsageError when it does not accept the arguments."""
        process: QemuProcess | None = None
        try:
            argv = record_command(self._machine.spec, self._launch(interactive))
            process = await QemuProcess.start(
                argv, pass_fds=self._wiring.pass_fds, interactive=interactive
            )
            self._wiring.release_theirs()
            return process
        except BaseException:
            if process:
                await process.kill()
            self._wiring.close()
            self._draft.discard()
            raise

    def _launch(self, interactive: bool) -> Launch:
        folder, ram = self._draft.path, self._wiring.ram
        with (folder / IMAGE).open("w+b") as image:
            create_image(image.fileno())
        console = str(folder / CONSOLE)
        (folder / CONSOLE).touch()
        return Launch(
            program=str(self._qemu.path),
            inputs=[str(path) for path in self._paths],
            vmstate=str(folder / IMAGE),
            log=str(folder / LOG),
            monitor_fd=self._wiring.monitor_fd,
            overlays=[
                fd_path(self._wiring.overlay(self._paths[disk.layers[0].input]))
                for disk in self._machine.spec.overlaid()
            ],
            console=Chardev.stdio(console) if interactive else Chardev.file(console),
            ram=RamFile(fd_path(ram.fd), ram.size) if ram else None,
            snapshot=INITIAL if self._manifest.snapshot else None,
            sandbox=self._qemu.has_sandbox,
            machine_options=[q.machine_option for q in self._quirks if q.machine_option],
            globals=[q.global_option for q in self._quirks if q.global_option],
            live_netdevs=self._machine.live_netdevs,
        )

    async def _watch(
        self,
        process: QemuProcess,
        monitor: Monitor,
        timeout: float | None,
        stop: asyncio.Event,
        progress: Progress | None,
    ) -> Ending | None:
        """Wait for the end; return how it came, None when the log knows."""
        await self._connect(process, monitor)
        until = time.monotonic() + timeout if timeout else None
        gone = asyncio.ensure_future(process.wait())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while True:
                await asyncio.wait(
                    (gone, stopped), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if gone.done():
                    return None
                if stopped.done():
                    return "interrupted"
                if until and time.monotonic() > until:
                    return "timeout"
                if WRITE_ERROR in process.stderr():
                    return "killed"
                if progress:
                    progress(await _position(monitor))
        finally:
            gone.cancel()
            stopped.cancel()

    async def _connect(self, process: QemuProcess, monitor: Monitor) -> None:
        try:
            await monitor.connect(self._wiring.monitor_link)
        except QemuDied as error:
            if process.returncode == 1:  # QEMU's answer to a command line it rejects
                raise UsageError(
                    f"{self._qemu.path.name} does not accept this machine.",
                    "Its own words follow; check the QEMU arguments.",
                    detail=process.stderr(),
                ) from error
            raise

    def _finish(self, ending: Ending | None, status: int, seconds: float) -> Recording:
        """Write the manifest of what was recorded, whole or not."""
        log = RrLog.open(self._draft.path / LOG)
        summary = RrLog.open(self._draft.path / LOG, salvage=not log.finalized).summary()
        complete = log.finalized and ending != "killed" and status == 0
        return self._draft.finish(
            msgspec.structs.replace(
                self._manifest,
                complete=complete,
                ending=ending or _ENDINGS.get(summary.shutdown or "", "quit"),
                end=summary.end,
                seconds=round(seconds, 3),
                events={kind.name.lower(): count for kind, count in summary.counts.items()},
            )
        )

    def _incomplete(self, recording: Recording, status: int, stderr: str) -> RetrogradeError:
        kept = f"What was recorded is kept, marked incomplete: {recording.path}"
        if WRITE_ERROR in stderr:
            return EnvironmentLacks(
                f"{recording.path.parent} cannot take more of the log: the disk is full.",
                f"Free some space and record again. {kept}",
            )
        return QemuDied(f"QEMU ended with status {status} while recording.", kept, stderr)


_ENDINGS: dict[str, Ending] = {
    "guest-shutdown": "guest-shutdown",
    "guest-reset": "guest-reset",
    "guest-panic": "guest-panic",
}


async def _position(monitor: Monitor) -> int:
    return int((await monitor.execute("query-replay"))["icount"])


async def _end(process: QemuProcess, monitor: Monitor) -> int:
    """End QEMU so that it finishes its log: asked over QMP, then by signal, then killed."""
    with contextlib.suppress(QemuError):
        if process.returncode is None:
            await monitor.execute("quit", seconds=EXIT_SECONDS)
            await process.wait(EXIT_SECONDS)
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(QemuError):
            await process.wait(EXIT_SECONDS)
    await process.kill()
    await monitor.close()
    return process.returncode or 0
