"""`retrograde record`: run a machine once and keep everything needed to replay it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from retrograde.cli import signals
from retrograde.cli.arguments import QEMU, complete_files, positive
from retrograde.cli.info import show
from retrograde.cli.output import JSON_OPTION, note, progress, warn
from retrograde.cli.terminal import ConsoleOutput, Terminal
from retrograde.cli.typist import Script, step_of
from retrograde.commandline.clock import SYSTEM_SHIFT
from retrograde.errors import UsageError
from retrograde.machine.scheduling import Policy
from retrograde.machine.userconsole import (
    AskedPlace,
    FileCopy,
    StdioConsole,
    asked_places,
)
from retrograde.recording.bundle import Recording

_TIMED_OUT = re.compile(rb"[^\r\n]{0,40}\btimed out\b[^\r\n]{0,20}", re.IGNORECASE)

_SOON = 1 << 30
"""Instructions of a recording that is replayed once more to say how it ended."""

_VNC = re.compile(r"unix:.+|(?:localhost|127\.0\.0\.1)?(?P<number>:\d{1,4})")


def _loopback(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return a place for QEMU's -vnc that only users of this machine can reach."""
    del ctx, param
    if not value:
        return ""
    found = _VNC.fullmatch(value)
    if not found:
        raise UsageError(
            f"{value!r} is no place for a screen.", "Say unix:PATH, or :N for port 5900+N."
        )
    if found["number"]:
        return f"127.0.0.1{found['number']}"
    # QEMU runs in another folder, and splits at single commas.
    return "unix:" + str(Path(value.removeprefix("unix:")).absolute()).replace(",", ",,")


@click.command("record")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NAME.retro",
    help="Directory to make.",
)
@click.option("--target", default="x86_64", show_default=True, help="qemu-system-TARGET runs it.")
@QEMU
@click.option(
    "--shift",
    type=click.IntRange(0, 10),
    help="2^SHIFT ns an instruction. Default: 4 with a disk, -initrd or -append, else 7.",
)
@click.option("--timeout", type=float, callback=positive, help="End it after so many seconds.")
@click.option(
    "--schedule",
    metavar="round-robin|random:SEED",
    help="How several processors (-smp N) take turns; :INSTRUCTIONS may follow.",
)
@click.option("--without-quirk", multiple=True, metavar="NAME", help="Leave out a remedy.")
@click.option(
    "--type",
    "steps",
    multiple=True,
    metavar="console:TEXT=KEYS",
    help=r"Type KEYS when the console shows TEXT; \n is Enter. May be given again.",
)
@click.option(
    "--vnc",
    default="",
    metavar="unix:PATH|:N",
    callback=_loopback,
    help="Show the guest's screen there, on loopback, and take its keyboard and mouse.",
)
@click.option("--copy-disks", is_flag=True, help="Keep large files, not links to them.")
@click.option("-i", "--interactive", is_flag=True, help="Guest console on this terminal.")
@JSON_OPTION
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="-- QEMU-ARGS...",
    shell_complete=complete_files,
)
def command(
    output: Path,
    target: str,
    qemu: str | None,
    shift: int | None,
    timeout: float | None,
    schedule: str | None,
    without_quirk: tuple[str, ...],
    steps: tuple[str, ...],
    vnc: str,
    copy_disks: bool,
    interactive: bool,
    as_json: bool,
    arguments: tuple[str, ...],
) -> None:
    """Record the machine QEMU would run with QEMU-ARGS.

    They stay as they are; what record/replay needs is added. Ctrl-C ends the recording
    and keeps it.
    """
    terminal = StdioConsole(signals=False, escapes=True) if interactive else None
    if interactive:
        note("Ctrl-A x ends the recording.")
    asked = asked_places(arguments)
    recording = signals.run(
        record_here(
            output,
            list(arguments),
            places={
                **{port: AskedPlace(None, place.files) for port, place in asked.items()},
                "console": AskedPlace(terminal, asked.get("console", AskedPlace()).files),
            },
            target=target,
            program=qemu,
            shift=shift,
            timeout=timeout,
            policy=Policy.parse(schedule) if schedule is not None else None,
            without_quirks=frozenset(without_quirk),
            script=Script([step_of(step) for step in steps]) if steps else None,
            vnc=vnc,
            copy_disks=copy_disks,
        )
    )
    _look_at_the_end(recording, qemu)
    show(recording, as_json=as_json)


async def record_here(
    output: Path,
    arguments: list[str],
    *,
    places: Mapping[str, AskedPlace],
    as_qemu: bool = False,
    target: str,
    program: str | None,
    shift: int | None = None,
    timeout: float | None = None,
    policy: Policy | None = None,
    without_quirks: frozenset[str] = frozenset(),
    script: Script | None = None,
    vnc: str = "",
    copy_disks: bool = False,
) -> Recording:
    """Record in this process: signals end the recording.

    What the machine writes goes to `places` too, by port; `as_qemu`, semihosting writes to
    our standard output and error as it would to QEMU's. Progress is shown unless the
    console is. What `script` says is typed.
    """
    from retrograde.machine.recorder import record

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals.on_ending(stop.set)
    with contextlib.ExitStack() as stack:
        end = show = None
        copies = {
            port: [stack.enter_context(_written(copy)).fileno() for copy in place.files]
            + (_number(sys.stdout) if place.terminal and port != "console" else [])
            for port, place in places.items()
        }
        if as_qemu:
            copies.setdefault("semihosting", _number(sys.stderr))
        written = copies.pop("console", [])
        terminal = places["console"].terminal if "console" in places else None
        if terminal:
            leave = functools.partial(loop.call_soon_threadsafe, stop.set)
            end = stack.enter_context(Terminal(terminal, leave, written, script)).theirs
        elif written or script:
            end = stack.enter_context(ConsoleOutput(written, script)).theirs
        if not terminal:
            show = stack.enter_context(progress("recording", None))
        recording = await record(
            output,
            arguments,
            target=target,
            program=program,
            shift=shift,
            timeout=timeout,
            policy=policy,
            without_quirks=without_quirks,
            copy_disks=copy_disks,
            stop=stop,
            console=end,
            vnc=vnc,
            copies=copies,
            stdout=next(iter(_number(sys.stdout)), None) if as_qemu else None,
            progress=show,
            warn=warn,
        )
    if late := _late(recording):
        warn(late)
    for text in script.left() if script else ():
        warn(f"the console never showed {text!r}: nothing was typed then")
    return recording


def _look_at_the_end(recording: Recording, program: str | None) -> None:
    """Find out whether the guest reset the machine by a triple fault, where that takes no long."""
    from retrograde.machine.qemu import Qemu
    from retrograde.machine.triplefault import find_fault, may_be

    if may_be(recording):
        qemu = Qemu.find(recording.manifest.machine.target, program)
        with progress("finding out how it ended", None):
            signals.run(find_fault(recording, qemu, farthest=_SOON))


def _late(recording: Recording) -> str:
    """Say that the guest's time-outs may come of its clock, which runs on instructions."""
    shift = recording.manifest.machine.shift
    if shift == "auto" or shift <= SYSTEM_SHIFT:
        return ""
    found = _TIMED_OUT.findall(recording.console_bytes())
    if not found:
        return ""
    first = found[0].decode(errors="replace").strip()
    return (
        f"something timed out {len(found)} times, the console says ({first!r}): at {2**shift} ns "
        f"an instruction the guest's processor is slow; try --shift {SYSTEM_SHIFT}"
    )


def _number(stream: TextIO | None) -> list[int]:
    """Return the descriptor of a stream of ours, if our caller left it open."""
    return [stream.fileno()] if stream else []


def _written(copy: FileCopy) -> BinaryIO:
    try:
        return copy.path.open("ab" if copy.append else "wb", buffering=0)
    except OSError as error:
        raise UsageError(
            f"{copy.path} cannot be written: {error.strerror}.", "Check the -serial argument."
        ) from error
