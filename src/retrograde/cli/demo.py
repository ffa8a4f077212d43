"""`retrograde demo`: watch a real machine run backwards, with nothing to prepare."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click
import msgspec

from retrograde.cli import signals
from retrograde.cli.output import (
    JSON_OPTION,
    human_bytes,
    print_facts,
    print_json,
    progress,
    status,
    warn,
)
from retrograde.errors import EnvironmentLacks, RetrogradeError
from retrograde.guests import Guest, builtin_guest, reference_guest
from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.machine.userfolder import cannot_keep, user_folder
from retrograde.position import format_position
from retrograde.recording.bundle import Recording
from retrograde.verify.scenario import ScenarioResult, run_scenario

STEPS = 10


class Demo(msgspec.Struct, kw_only=True):
    """The JSON document. Times are in seconds; None for what was not done again."""

    guest: str
    recording: str
    end: int
    record_seconds: float
    replay_seconds: float | None
    console_equal: bool | None
    verified: ScenarioResult
    verify_seconds: float


@click.command("demo")
@click.option("--tiny", is_flag=True, help="Use the built-in guest instead of a Debian kernel.")
@JSON_OPTION
def command(tiny: bool, as_json: bool) -> None:
    """Record a Debian kernel's boot to power-off, replay it, run it backwards.

    The recording is kept and used again the next time.
    """
    guest = builtin_guest() if tiny else _guest()
    recording, is_new = _recording(guest)
    qemu = qemu_for(recording)
    replay_seconds, equal = _replay(recording, qemu) if is_new else (None, None)
    began = time.monotonic()
    with status("running it backwards") as report:
        verified = signals.run(run_scenario(recording, qemu, steps=STEPS, report=report))
    demo = Demo(
        guest=guest.description,
        recording=str(recording.path),
        end=recording.end,
        record_seconds=recording.manifest.seconds,
        replay_seconds=replay_seconds,
        console_equal=equal,
        verified=verified,
        verify_seconds=round(time.monotonic() - began, 3),
    )
    if as_json:
        print_json(demo)
    else:
        _print(demo, recording)


def _guest() -> Guest:
    with status("fetching a Debian kernel"):
        try:
            return reference_guest()
        except EnvironmentLacks as error:
            warn(f"{error.what} Using the built-in guest instead.")
            return builtin_guest()


def _recording(guest: Guest) -> tuple[Recording, bool]:
    """Return the demo's recording of `guest`, and whether it was made just now."""
    path = _place() / f"demo-{guest.name}.retro"
    with contextlib.suppress(RetrogradeError):
        recording = Recording.open(path)
        qemu_for(recording)
        return recording, False
    if path.exists():
        path.rename(_free_name(path))
    from retrograde.machine.recorder import record

    with progress("recording", None) as show:
        arguments = [*guest.qemu_args, "-vga", "none", "-no-reboot"]
        return signals.run(record(path, arguments, target=guest.target, progress=show)), True


def _free_name(path: Path) -> Path:
    """Return a name for a recording that cannot be used any more: it is not ours to delete."""
    return path.with_name(f"{path.stem}-{int(path.stat().st_mtime)}{path.suffix}")


def _place() -> Path:
    place = user_folder("XDG_STATE_HOME", ".local/state")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_keep("The recording", place, error, "XDG_STATE_HOME") from error
    return place


def _replay(recording: Recording, qemu: Qemu) -> tuple[float, bool]:
    """Replay from start to end; return the time and whether the console came out equal."""
    from retrograde.machine.console import ConsolePipe
    from retrograde.machine.replayer import Replayer

    console = bytearray()

    async def run() -> None:
        async with ConsolePipe(console.extend) as pipe:
            fd = pipe.write_fd
            async with await Replayer.start(recording, qemu, console_fd=fd) as replayer:
                with progress("replaying", recording.end) as show:
                    await replayer.run_to(recording.end, progress=show)

    began = time.monotonic()
    signals.run(run())
    recorded = recording.console_bytes()
    until = recording.console.bytes_until(recording.end)
    return round(time.monotonic() - began, 3), bytes(console) == recorded[:until]


def _print(demo: Demo, recording: Recording) -> None:
    log = recording.manifest.files["replay.log"].bytes
    lines = recording.console_bytes().count(b"\n")
    replayed = "done before, see the first run"
    if demo.replay_seconds is not None:
        verdict = "byte for byte the same" if demo.console_equal else "NOT the same"
        replayed = f"{demo.replay_seconds:.1f} s, console {verdict}"
    print_facts(
        {
            "guest": demo.guest,
            "recorded": f"{format_position(demo.end)} instructions in "
            f"{demo.record_seconds:.1f} s, {lines} console lines, log {human_bytes(log)}",
            "replayed": replayed,
            "ran backwards": f"{demo.verified.steps} steps back and forth with gdb, then from "
            f"{format_position(demo.verified.stopped_at)} back to pc "
            f"{demo.verified.last_pc:#x}, in {demo.verify_seconds:.1f} s",
            "recording": demo.recording,
            "try next": f"retrograde debug {demo.recording}",
        }
    )
