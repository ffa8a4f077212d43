"""`retrograde info`: what a recording holds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click
import msgspec

from retrograde.cli.arguments import RECORDING
from retrograde.cli.output import JSON_OPTION, human_bytes, print_facts, print_json
from retrograde.errors import RecordingError
from retrograde.machine.triplefault import TripleFault, known_fault
from retrograde.position import format_position
from retrograde.recording.bundle import CONSOLE, LOG, Recording
from retrograde.recording.manifest import FileName, InputFile
from retrograde.recording.sealed import Damaged, Kept


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints, here and after `record`. Fields are added, never changed.

    Positions are in instructions, sizes in bytes. `events` counts those of the rr log
    by kind; `status` is QEMU's exit status. `triple_fault` is what led to one, where `record` or
    `index` found that (machine.triplefault).
    """

    recording: str
    complete: bool
    ending: str
    end: int
    status: int
    created: str
    seconds: float
    tool: str
    qemu: str
    target: str
    shift: int | str
    ram_bytes: int
    ram_shared: bool
    quirks: tuple[str, ...]
    events: dict[str, int]
    log_bytes: int
    console_bytes: int
    checkpoints: int
    inputs: tuple[InputFile, ...]
    triple_fault: TripleFault | None = None


@click.command("info")
@RECORDING
@click.option(
    "--plot",
    "picture",
    metavar="FILE.svg",
    type=click.Path(path_type=Path),
    help="Draw calls, interrupts and console over position, and print nothing.",
)
@JSON_OPTION
def command(recording: Recording, picture: Path | None, as_json: bool) -> None:
    """Show end position, events, console size, checkpoints and inputs of a recording."""
    if picture is None:
        show(recording, as_json=as_json)
        return
    from retrograde.index.plot import plot

    plot(recording, picture)


def show(recording: Recording, *, as_json: bool) -> None:
    """Print what a recording holds, for a person or a program."""
    info = info_of(recording)
    if as_json:
        print_json(info)
    else:
        print_facts(facts(info))


def info_of(recording: Recording) -> Info:
    """Return what a recording holds. Reads its log only when nobody finished it.

    Raises RecordingError when log or console is longer or shorter than what was recorded.
    """
    manifest = recording.manifest
    events = manifest.events
    if not manifest.files:
        counts = recording.log().summary().counts
        events = {kind.name.lower(): count for kind, count in counts.items()}
    return Info(
        recording=str(recording.path),
        complete=manifest.complete,
        ending=manifest.ending,
        end=recording.end,
        status=manifest.status,
        created=manifest.created,
        seconds=manifest.seconds,
        tool=manifest.tool,
        qemu=manifest.qemu.version,
        target=manifest.machine.target,
        shift=manifest.machine.shift,
        ram_bytes=manifest.ram.bytes,
        ram_shared=manifest.ram.shared,
        quirks=manifest.quirks,
        events=events,
        log_bytes=_size(recording, LOG),
        console_bytes=_size(recording, CONSOLE),
        checkpoints=_checkpoints(recording),
        inputs=manifest.inputs,
        triple_fault=known_fault(recording),
    )


def _size(recording: Recording, name: FileName) -> int:
    """Return the bytes of an own file; RecordingError where that is not what was recorded."""
    with recording.open_own(name) as file:
        found = os.fstat(file.fileno()).st_size
    recorded = recording.manifest.files.get(name)
    if recorded and recorded.bytes != found:
        recording.check_digests([name])
    return found


def facts(info: Info) -> dict[str, str]:
    """Return what people want to know about a recording, by name."""
    shared = "shared memory file" if info.ram_shared else "private to QEMU"
    incomplete = "" if info.complete else " (incomplete: replays up to its last whole event)"
    status = f", QEMU's exit status {info.status}" if info.status else ""
    per_1000 = 1000 * info.log_bytes / max(1, info.end)
    took = f" in {info.seconds:.1f} s" if info.seconds else ""
    return {
        "recording": info.recording,
        "machine": f"{info.target}, {_mebibytes(info.ram_bytes)} RAM ({shared})",
        "recorded": f"{info.created}{took} by QEMU {info.qemu}",
        "end": f"{format_position(info.end)} instructions, {info.ending}{status}{incomplete}",
        **({"ended by": str(info.triple_fault)} if info.triple_fault else {}),
        "quirks": ", ".join(info.quirks) or "none",
        "log": f"{human_bytes(info.log_bytes)}, {sum(info.events.values()):_} events, "
        f"{per_1000:.2f} B/1000 instructions",
        "console": human_bytes(info.console_bytes),
        "checkpoints": str(info.checkpoints),
    } | {
        f"input {entry.name}": f"{human_bytes(entry.bytes)}, sha256 {entry.sha256[:16]}…"
        for entry in info.inputs
    }


def _mebibytes(count: int) -> str:
    """Return a size of RAM as -m takes it."""
    return f"{count / (1 << 20):.15g} MiB"


_INDEX_LIMIT = 64 << 20
"""Bytes, as in timeline.storefiles."""


class _CheckpointIndex(msgspec.Struct):
    checkpoints: list[msgspec.Raw]


def _checkpoints(recording: Recording) -> int:
    """Count the checkpoints in the cache; `timeline.store`, which knows them, takes 0.1 s."""
    with contextlib.suppress(OSError, RecordingError, Damaged):
        folder = recording.open_cache().folder("checkpoints")
        index = Kept(folder, "index.json", _CheckpointIndex, _INDEX_LIMIT).read()
        return len(index.checkpoints)
    return 0
