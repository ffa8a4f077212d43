"""`retrograde replay`: run a recording; its console goes to stdout."""

from __future__ import annotations

import sys

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, QEMU, RECORDING
from retrograde.cli.output import JSON_OPTION, note, print_json, progress
from retrograde.errors import Divergence
from retrograde.machine.compat import qemu_for
from retrograde.machine.console import Sink
from retrograde.machine.qemu import Qemu
from retrograde.position import format_position
from retrograde.recording.bundle import Recording


@click.command("replay")
@RECORDING
@click.option("--to", "to", metavar="POSITION", default="end", help="Stop there (default: end).")
@QEMU
@FORCE
@JSON_OPTION
def command(recording: Recording, to: str, qemu: str | None, force: bool, as_json: bool) -> None:
    """Replay from the start, with the guest's console on stdout.

    Exit code 1 when the console is not the recorded one.
    """
    target = recording.resolve(to)
    program = qemu_for(recording, qemu, force=force)
    console = bytearray()

    def sink(data: bytes) -> None:
        console.extend(data)
        if not as_json:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    signals.run(_replay(recording, program, target, sink))
    equal = recording.console.bytes_until(target) == len(console) and (
        recording.console_bytes().startswith(console)
    )
    if as_json:
        print_json({"position": target, "console_bytes": len(console), "console_equal": equal})
    else:
        note(f"stopped at {format_position(target)}")
    if not equal:
        raise Divergence(
            f"The replayed console is not the recorded one up to {format_position(target)}.",
            "`retrograde verify` looks for the first difference.",
        )


async def _replay(recording: Recording, qemu: Qemu, target: int, sink: Sink) -> None:
    from retrograde.machine.console import ConsolePipe
    from retrograde.machine.replayer import Replayer

    async with ConsolePipe(sink) as console:
        fd = console.write_fd
        with progress("replaying", recording.end) as show:
            async with await Replayer.start(recording, qemu, console_fd=fd) as replayer:
                await replayer.run_to(target, progress=show)
