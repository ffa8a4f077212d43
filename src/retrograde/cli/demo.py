"""`retrograde demo`: what this is for, in five parts, with nothing to prepare."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from retrograde.cli import signals, tour
from retrograde.cli.output import human_bytes, note, print_facts, progress, say, status, warn
from retrograde.errors import EnvironmentLacks, RetrogradeError
from retrograde.guests import Guest, builtin_guest
from retrograde.guests.demo import demo_boots
from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.machine.userfolder import cannot_keep, user_folder
from retrograde.position import format_position
from retrograde.recording.bundle import Recording
from retrograde.verify.scenario import run_scenario

STEPS = 10


@click.command("demo")
@click.option("--tiny", is_flag=True, help="Use a built-in guest instead, and show less.")
def command(tiny: bool) -> None:
    """Record two boots of a Debian kernel, and go anywhere in them, both ways.

    Each part says how to repeat it by hand. The recordings are kept and used again the next
    time. Where QEMU cannot carry the probe, or a package is missing, one boot is recorded,
    replayed and run backwards by gdb, and you are told what the rest needs.
    """
    began = time.monotonic()
    guests = (builtin_guest(),) if tiny else _boots()
    lacks = _what_lacks(guests[0]) if len(guests) > 1 else None
    folder = _place()
    say(f"$ cd {folder}")
    if len(guests) > 1 and lacks is None:
        _whole(guests, folder)
    else:
        _short(guests[0], folder)
    say(f"\nThat took {time.monotonic() - began:.0f} s; the recordings are used again next time.")
    if lacks is not None:
        say(f"\nThere is more to see. {lacks.what}")
        say(f"{lacks.remedy}")


def _boots() -> tuple[Guest, ...]:
    with status("fetching a Debian kernel"):
        try:
            return demo_boots()
        except EnvironmentLacks as error:
            warn(f"{error.what} {error.remedy} A built-in guest is used instead, and less shown.")
            return (builtin_guest(),)


def _what_lacks(guest: Guest) -> EnvironmentLacks | None:
    """Return what the probe or the index needs and is not here; None where all is."""
    from retrograde.index.tables.store import import_duckdb
    from retrograde.machine.probe.support import require_probe

    try:
        with status("trying QEMU"):
            require_probe(Qemu.find(guest.target).path)
        import_duckdb()
    except EnvironmentLacks as error:
        return error
    return None


def _place() -> Path:
    place = user_folder("XDG_STATE_HOME", ".local/state") / "demo"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_keep("The recording", place, error, "XDG_STATE_HOME") from error
    return place


def _whole(guests: tuple[Guest, ...], folder: Path) -> None:
    """Record and index both boots, and go through the five parts."""
    boot, broken = (_recorded(guest, folder) for guest in guests)
    for recording in (boot, broken):
        if not _is_indexed(recording):
            tour.run("index", recording.name, folder=folder)
    tour.take(boot, broken, guests[0].start)


def _is_indexed(recording: Recording) -> bool:
    from retrograde.index.tables.interval import REPLAYED
    from retrograde.index.tables.store import IndexStore

    store = IndexStore(recording)
    return all(store.covers(table, recording.end) for table in REPLAYED)


def _recorded(guest: Guest, folder: Path) -> Recording:
    """Return the demo's recording of `guest`, made now where there is none that can be used."""
    path = folder / f"{guest.name}.retro"
    with contextlib.suppress(RetrogradeError):
        recording = Recording.open(path)
        qemu_for(recording)
        note(f"{path.name} is used again")
        return recording
    if path.exists():
        path.rename(_free_name(path))
    from retrograde.machine.recorder import record

    tour.show("record", "-o", path.name, "--", *guest.qemu_args)
    with progress("recording", None) as report:
        recording = signals.run(record(path, guest.qemu_args, target=guest.target, progress=report))
    log = recording.manifest.files["replay.log"].bytes
    lines = recording.console_bytes().count(b"\n")
    print_facts(
        {
            "guest": guest.description,
            "recorded": f"{format_position(recording.end)} instructions in "
            f"{recording.manifest.seconds:.1f} s, {lines} console lines, log {human_bytes(log)}",
        }
    )
    return recording


def _free_name(path: Path) -> Path:
    """Return a name for a recording that cannot be used any more: it is not ours to delete."""
    return path.with_name(f"{path.stem}-{int(path.stat().st_mtime)}{path.suffix}")


def _short(guest: Guest, folder: Path) -> None:
    """Show what works without the probe: a replay is the same, and gdb goes back in it."""
    recording = _recorded(guest, folder)
    qemu = qemu_for(recording)
    tour.heading("1. A replay is the same, byte for byte")
    tour.show("replay", recording.name)
    seconds, equal = _replay(recording, qemu)
    verdict = "is the same" if equal else "is NOT the same"
    say(f"{format_position(recording.end)} instructions in {seconds:.1f} s; the console {verdict}")
    tour.heading("2. The machine runs backwards, in stock gdb")
    tour.show("verify", "--steps", str(STEPS), recording.name)
    with status("running it backwards") as report:
        verified = signals.run(run_scenario(recording, qemu, steps=STEPS, report=report))
    say(
        f"{verified.steps} steps back and forth, then from "
        f"{format_position(verified.stopped_at)} back to pc {verified.last_pc:#x}"
    )
    say("\nTo go there yourself:")
    tour.show("debug", recording.name, "--at", "50%")


def _replay(recording: Recording, qemu: Qemu) -> tuple[float, bool]:
    """Replay from start to end; return the time and whether the console came out equal."""
    from retrograde.machine.console import ConsolePipe
    from retrograde.machine.replayer import Replayer

    console = bytearray()

    async def run() -> None:
        async with ConsolePipe(console.extend) as pipe:
            fd = pipe.write_fd
            async with await Replayer.start(recording, qemu, console_fd=fd) as replayer:
                with progress("replaying", recording.end) as report:
                    await replayer.run_to(recording.end, progress=report)

    began = time.monotonic()
    signals.run(run())
    recorded = recording.console_bytes()
    until = recording.console.bytes_until(recording.end)
    return time.monotonic() - began, bytes(console) == recorded[:until]
