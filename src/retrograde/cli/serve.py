"""`retrograde serve`: let debuggers attach to a recording."""

from __future__ import annotations

import asyncio
import contextlib
import shlex

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, QEMU, RECORDING, complete_files
from retrograde.cli.output import note, progress, warn
from retrograde.errors import UsageError
from retrograde.gdbserver.address import Address
from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording

_LLDB_PATIENCE = "settings set plugin.process.gdb-remote.packet-timeout 3600"
"""In seconds. lldb ends the conversation after four times this, which is 5 unless set."""


@click.command("serve")
@RECORDING
@click.option(
    "--gdb",
    "text",
    metavar="ADDR",
    required=True,
    shell_complete=complete_files,
    help="Where to listen: a Unix socket's path, or HOST:PORT of this machine.",
)
@click.option("--at", metavar="POSITION", default="start", help="Begin there (default: start).")
@click.option("--expose", is_flag=True, help="Allow an address that other machines can reach.")
@QEMU
@FORCE
def command(
    recording: Recording, text: str, at: str, expose: bool, qemu: str | None, force: bool
) -> None:
    """Serve the GDB remote protocol until Ctrl-C; gdb and lldb attach, one at a time.

    In gdb: `target remote ADDR`, then all reverse commands work. lldb needs the longer
    time-out that is printed with its own command.
    """
    address = Address.parse(text)
    if not address.is_local:
        if not expose:
            raise UsageError(
                f"Other machines could connect to {address}, and nobody asks for a password.",
                "Use a path or localhost, with ssh -L from elsewhere; --expose does it anyway.",
            )
        warn(f"anybody who can reach {address} can read all of this recording.")
    program = qemu_for(recording, qemu, force=force)
    signals.run(_serve(recording, program, address, recording.resolve(at)))


IDLE_SECONDS = 600.0
"""After which a client that anybody can be gives way to another."""


async def _serve(recording: Recording, qemu: Qemu, address: Address, at: int) -> None:
    from retrograde.gdbserver.face import mode_for
    from retrograde.gdbserver.server import GdbServer
    from retrograde.investigation.investigation import Investigation

    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as opened:
        with progress("preparing", recording.end) as show:
            seen = await opened.enter_async_context(Investigation(recording, qemu, progress=show))
            timeline = await opened.enter_async_context(await seen.timeline(at))
        signals.on_ending(stop.set)
        server = await opened.enter_async_context(
            await GdbServer.start(
                timeline,
                address,
                warn,
                patience=None if address.is_local else IDLE_SECONDS,
                mode=mode_for(recording, recording.program()),
            )
        )
        if not timeline.can_search:
            warn("without the probe (`retrograde doctor`) only steps work, no breakpoints.")
        note(f"target remote {server.address}")
        words = ["lldb", "-o", _LLDB_PATIENCE, "-o", f"process connect {server.address.url}"]
        note(f"or {shlex.join(words)}")
        await stop.wait()
