"""`retrograde debug`: gdb on a recording, able to go both ways."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, PROGRAM, QEMU, RECORDING, complete_files
from retrograde.cli.output import progress, warn
from retrograde.errors import EnvironmentLacks
from retrograde.held import Scratch
from retrograde.isa.isa import isa_for
from retrograde.machine.compat import qemu_for
from retrograde.machine.elfkind import require_program_for
from retrograde.machine.gdbprogram import NOT_ITS_SCRIPTS, PATIENCE, gdb_for
from retrograde.machine.probe.support import require_probe
from retrograde.machine.process import send_signal
from retrograde.machine.qemu import Qemu
from retrograde.machine.wiring import socket_in
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.timeline.timeline import Timeline

_SECONDS_TO_LEAVE = 5.0


@click.command("debug")
@RECORDING
@click.option("--at", metavar="POSITION", default="start", help="Begin there (default: start).")
@click.option(
    "--symbols",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    multiple=True,
    help="ELF file whose symbols gdb loads: vmlinux, a user program; any number of them.",
)
@click.option(
    "--gdb",
    "program",
    metavar="PROGRAM",
    type=PROGRAM,
    help="gdb to use (default: one that knows the guest).",
)
@QEMU
@FORCE
@click.argument(
    "gdb_args",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[-- GDB-ARGS...]",
    shell_complete=complete_files,
)
def command(
    recording: Recording,
    at: str,
    symbols: tuple[Path, ...],
    program: str | None,
    qemu: str | None,
    force: bool,
    gdb_args: tuple[str, ...],
) -> int:
    """Open gdb, attached, at a position of the recording; ends when gdb ends.

    Symbols come from --symbols, else from the recording's kernel if that is an ELF file, else
    those that a Linux kernel has in its own memory.
    In gdb, `help retro` lists what is added to its own commands.
    """
    position = recording.resolve(at)
    found = qemu_for(recording, qemu, force=force)
    gdb = [gdb_for(isa_for(recording.manifest.machine.target), program), "-q", *PATIENCE]
    for file in symbols:
        require_program_for(file, recording.manifest.machine.target)
    if not symbols or any(_is_part_of(file, recording) for file in symbols):
        gdb += NOT_ITS_SCRIPTS
    return signals.run(_debug(recording, found, position, gdb, symbols, gdb_args))


def _is_part_of(path: Path, recording: Recording) -> bool:
    """Whether the file at `path` came with the recording, by its name or where that leads."""
    ours = (recording.path, recording.path.resolve())
    theirs = (Path(os.path.normpath(path.absolute())), path.resolve())
    return any(one.is_relative_to(folder) for one in theirs for folder in ours)


async def _debug(
    recording: Recording,
    qemu: Qemu,
    at: int,
    gdb: Sequence[str],
    symbols: Sequence[Path],
    extra: Sequence[str],
) -> int:
    try:
        require_probe(qemu.path)
        serving = _served(recording, qemu, at, symbols)
    except EnvironmentLacks as error:
        warn(f"{error.what} gdb gets QEMU's own stub: slower, and no `retro` commands.")
        serving = _served_by_qemu(recording, qemu, at, symbols)
    async with serving as connect:
        return await _run_gdb([*gdb, *connect, *extra])


def _guest(
    recording: Recording, program: Path | None, architecture: str | None = None
) -> list[str]:
    """Return what tells gdb of a guest, and of its program if that is where it is linked."""
    isa = isa_for(recording.manifest.machine.target)
    # Of a file that names another architecture gdb would not take ours back.
    return [
        *([str(program)] if program else []),
        *("-ex", f"set architecture {architecture or isa.gdb_architecture}"),
        *("-ex", f"set endian {isa.byte_order}"),
    ]


@contextlib.asynccontextmanager
async def _served(
    recording: Recording, qemu: Qemu, at: int, symbols: Sequence[Path]
) -> AsyncIterator[list[str]]:
    """Serve the recording while the context lasts; yields how gdb is told to attach."""
    from retrograde.gdbserver.address import Address
    from retrograde.gdbserver.face import mode_for
    from retrograde.gdbserver.mode import ModeChoice
    from retrograde.gdbserver.server import GdbServer
    from retrograde.investigation.investigation import Investigation

    commands = resources.files("retrograde.gdbserver") / "gdbinit.py"
    async with contextlib.AsyncExitStack() as opened:
        folder = opened.enter_context(Scratch())
        script = opened.enter_context(resources.as_file(commands))
        address = Address(path=str(socket_in(folder)))
        # The bar must be gone before the terminal is gdb's.
        with progress("preparing", recording.end) as show:
            seen = await opened.enter_async_context(Investigation(recording, qemu, progress=show))
            timeline = await opened.enter_async_context(await seen.timeline(at))
        program = symbols[0] if symbols else recording.program()
        mode = mode_for(recording, program)
        architecture = "i386" if mode else None
        guest = _guest(recording, None if symbols else program, architecture)
        if at and (doubt := await ModeChoice().doubt(timeline, mode)):
            warn(doubt.rstrip())
        attach = ["-ex", f"source {script}", "-ex", f"target remote {address}"]
        if symbols:  # placed by what the guest's memory tells, which takes a connection
            names = [_quoted(file.absolute()) for file in symbols]
            attach = ["-ex", f"exec-file {names[0]}", *attach]
            attach += [word for name in names for word in ("-ex", f"retro symbols {name}")]
        await opened.enter_async_context(await GdbServer.start(timeline, address, warn, mode=mode))
        if not program and (kernel := await _own_names(timeline)):
            file = Path(folder) / "kernel"
            file.write_bytes(kernel)
            # Before our commands: it is in place already.
            attach = ["-ex", f"symbol-file {_quoted(file)}", *attach]
        yield [*guest, *attach]


async def _own_names(timeline: Timeline) -> bytes | None:
    """Return the symbols that the Linux kernel here has in its own memory, as a file for gdb."""
    from retrograde.index.symbols.kernelplace import symbols_here
    from retrograde.index.symbols.symbolelf import symbol_elf

    manifest = timeline.recording.manifest
    if not manifest.ram.seen:
        return None
    kernel = await symbols_here(timeline)
    return await asyncio.to_thread(symbol_elf, manifest.machine.target, kernel)


def _quoted(path: Path) -> str:
    """Return a path as a word of gdb's."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@contextlib.asynccontextmanager
async def _served_by_qemu(
    recording: Recording, qemu: Qemu, at: int, symbols: Sequence[Path]
) -> AsyncIterator[list[str]]:
    """Let QEMU serve the recording itself, which it can since 5.2."""
    from retrograde.gdbserver.face import mode_for
    from retrograde.machine.replayer import Replayer
    from retrograde.machine.wiring import GdbListener

    with GdbListener() as listener:
        async with await Replayer.start(recording, qemu, gdb_listener=listener) as replayer:
            listener.release()
            if at:
                await replayer.save_for_gdb()
            with progress("replaying", at) as show:
                await replayer.run_to(at, show)
            program = symbols[0] if symbols else recording.program()
            if mode_for(recording, program):
                warn("QEMU's stub takes this 32-bit program for 64-bit code: its values are wrong.")
            guest = _guest(recording, program)
            added = [f"add-symbol-file {_quoted(file.absolute())}" for file in symbols[1:]]
            yield [
                *guest,
                *("-ex", f"target remote {listener.path}"),
                *(word for line in added for word in ("-ex", line)),
            ]


async def _run_gdb(arguments: Sequence[str]) -> int:
    """Run gdb on our terminal until it ends; what its keys send is for gdb alone."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, lambda: None)
    gdb = await asyncio.create_subprocess_exec(*arguments)
    try:
        status = await gdb.wait()
        return 128 - status if status < 0 else status  # a signal's as a shell tells it
    finally:
        if gdb.returncode is None:
            await _end(gdb)


async def _end(gdb: asyncio.subprocess.Process) -> None:
    """End a gdb whose user is gone, politely first: it sets the terminal back."""
    send_signal(gdb, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS_TO_LEAVE):
            await gdb.wait()
    if gdb.returncode is None:
        send_signal(gdb, signal.SIGKILL)
        await gdb.wait()
