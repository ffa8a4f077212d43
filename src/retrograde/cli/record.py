"""`retrograde record`: run a machine once and keep everything needed to replay it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from retrograde.cli.arguments import QEMU, positive
from retrograde.cli.info import facts
from retrograde.cli.output import JSON_OPTION, print_facts, print_json, progress, warn
from retrograde.recording.bundle import Recording


@click.command("record")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="NAME.retro"
)
@click.option("--target", default="x86_64", show_default=True, help="qemu-system-TARGET runs it.")
@QEMU
@click.option(
    "--shift",
    type=click.IntRange(0, 10),
    default=7,
    show_default=True,
    help="2^SHIFT ns an instruction.",
)
@click.option("--timeout", type=float, callback=positive, help="End it after so many seconds.")
@click.option("--without-quirk", multiple=True, metavar="NAME", help="Leave out a remedy.")
@click.option("-i", "--interactive", is_flag=True, help="Guest console on this terminal.")
@JSON_OPTION
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- QEMU-ARGS...")
def command(
    output: Path,
    target: str,
    qemu: str | None,
    shift: int,
    timeout: float | None,
    without_quirk: tuple[str, ...],
    interactive: bool,
    as_json: bool,
    arguments: tuple[str, ...],
) -> None:
    """Record the machine QEMU would run with QEMU-ARGS.

    They stay as they are; what record/replay needs is added. Ctrl-C ends the recording
    and keeps it.
    """
    recording = asyncio.run(
        _record(
            output,
            list(arguments),
            target=target,
            program=qemu,
            shift=shift,
            timeout=timeout,
            without_quirks=frozenset(without_quirk),
            interactive=interactive,
        )
    )
    if as_json:
        print_json({"recording": str(recording.path), "manifest": recording.manifest})
    else:
        print_facts(facts(recording))


async def _record(
    output: Path,
    arguments: list[str],
    *,
    target: str,
    program: str | None,
    shift: int,
    timeout: float | None,
    without_quirks: frozenset[str],
    interactive: bool,
) -> Recording:
    from retrograde.machine.recorder import record

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    with progress("recording", None) as show:
        return await record(
            output,
            arguments,
            target=target,
            program=program,
            shift=shift,
            timeout=timeout,
            without_quirks=without_quirks,
            stop=stop,
            interactive=interactive,
            progress=None if interactive else show,
            warn=warn,
        )
