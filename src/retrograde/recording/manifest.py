"""manifest.json: what was recorded, as strictly typed data.

Opening a recording is opening data from a stranger: unknown fields, wrong types and
names that point anywhere but into the recording are refused here, before anything
else looks at them. The command line is not in it; it is rebuilt from `machine`
(see machinespec) through an allow-list.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

import msgspec

from retrograde.errors import FormatTooNew, ManifestError
from retrograde.recording.machinespec import MachineSpec
from retrograde.recording.rrlayout import FIRST
from retrograde.visible import visible

FORMAT = 3
"""Version of the recording directory. Bump it with every change old readers cannot read."""

PORTS_FORMAT = 2
"""That of recordings with ports.log and without schedule.log, which older ones read."""

FIRST_FORMAT = 1
"""That of recordings without either, which retrograde 0.1 reads."""

MANIFEST_LIMIT = 1 << 20
"""Bytes a manifest may have; a real one has about 3 kB."""

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # what QEMU counts with
Line = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
"""Text that goes to people's terminals: it cannot control them."""

MAX_RAM_BYTES = 1 << 40

_REMEDY = "The recording is damaged or not made by retrograde; record it again."
_QUOTE_LIMIT = 200

FileName = Literal["replay.log", "console.log", "machine.qcow2", "ports.log", "schedule.log"]
"""The recording's own files; the fourth only with ports beside the console, the fifth only with
several processors."""

Ending = Literal[
    "guest-shutdown", "guest-reset", "guest-panic", "timeout", "interrupted", "quit", "killed"
]
"""How the recorded execution ended. The last one only with `complete` false."""


class QemuIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The QEMU that made the recording: only the same binary replays it for sure.

    `log_version` is that of its rr logs, which an unfinished log does not tell. Left out
    where it is the first, so that old readers read all recordings whose logs they know.
    """

    version: Line
    sha256: Sha256
    log_version: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = FIRST.version


class Ram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Guest RAM: its size in bytes, and whether it is a shared memory file."""

    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_RAM_BYTES)]
    shared: bool

    @property
    def seen(self) -> int:
        """Bytes of it that can be seen from outside QEMU: all or none."""
        return self.bytes if self.shared else 0


SCHEDULER = 1
"""Version of the scheduler: of what a schedule means in a replay (docs/scheduler.md)."""


class Scheduler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How several processors took turns: the `version` of the scheduler that a replay needs.

    `quantum` is how many instructions one ran before another's turn, the most of them where they
    were drawn with `seed`, which is 0 where they were not. A replay does not depend on either.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
    quantum: Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)]
    seed: Annotated[int, msgspec.Meta(ge=0, lt=10**18)] = 0


class InputFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file the machine was started with, kept as `inputs/NAME`."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}\Z")]
    sha256: Sha256
    bytes: Count


class FileDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one of the recording's own files."""

    bytes: Count
    sha256: Sha256


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything about a recording but its bulk. Positions are in instructions.

    `end` is the last position a replay reaches; `events` counts the rr log's events by
    kind; `seconds` is the wall time recording took; `status` is what QEMU exited with,
    negative for a signal (guests choose it with isa-debug-exit and the like).
    """

    format: int = FIRST_FORMAT
    tool: Line
    created: Line
    qemu: QemuIdentity
    machine: MachineSpec
    ram: Ram
    snapshot: bool
    scheduler: Scheduler | msgspec.UnsetType = msgspec.UNSET
    quirks: tuple[Line, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    complete: bool = False
    ending: Ending = "killed"
    end: Count = 0
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    status: Annotated[int, msgspec.Meta(ge=-128, le=255)] = 0
    events: dict[Line, Count] = {}
    files: dict[FileName, FileDigest] = {}

    def own_files(self) -> tuple[FileName, ...]:
        """Return the names of the recording's own files."""
        names: tuple[FileName, ...] = get_args(FileName)
        absent = {"ports.log"} if not self.machine.keeps_ports() else set()
        absent |= {"schedule.log"} if self.machine.vcpus == 1 else set()
        return tuple(name for name in names if name not in absent)


def format_of(machine: MachineSpec) -> int:
    """Return the version of a recording of `machine`: the oldest that has what it needs."""
    if machine.vcpus > 1:
        return FORMAT
    return PORTS_FORMAT if machine.keeps_ports() else FIRST_FORMAT


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, name: str) -> Manifest:
    """Parse and validate a manifest; `name` is the recording's, for messages.

    Raises ManifestError or FormatTooNew.
    """
    if len(data) > MANIFEST_LIMIT:
        raise ManifestError(f"The manifest of {name} is absurdly large.", _REMEDY)
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
        if version > FORMAT:
            raise FormatTooNew(
                f"{name} has format {version}, this retrograde reads up to {FORMAT}.",
                "Install a newer retrograde.",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
        _check(manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The message may quote a stranger's text, of any length and to a terminal.
        why = visible(str(error)[:_QUOTE_LIMIT])[:_QUOTE_LIMIT]
        raise ManifestError(f"The manifest of {name} is not valid: {why}.", _REMEDY) from error
    if isinstance(manifest.scheduler, Scheduler) and manifest.scheduler.version > SCHEDULER:
        raise FormatTooNew(
            f"{name} needs version {manifest.scheduler.version} of the scheduler, this retrograde "
            f"has {SCHEDULER}.",
            "Install a newer retrograde.",
        )
    return manifest


def input_name(path_name: str, taken: set[str]) -> str:
    """Return a name for an input file that the schema allows and `taken` does not hold."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", path_name)[-100:].lstrip(".+-") or "input"
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{number}-{name}", number + 1
    return candidate


class _Versioned(msgspec.Struct):
    format: Annotated[int, msgspec.Meta(ge=1)]


def _check(manifest: Manifest) -> None:
    """Raise ValueError for what no single field shows."""
    names = [file.name for file in manifest.inputs]
    if len(set(names)) != len(names):
        raise ValueError("it names an input twice")
    if idle := set(range(len(names))) - manifest.machine.inputs():
        # A program that opens the others may look at what lies beside them.
        raise ValueError(f"no part of the machine needs the input {names[min(idle)]}")
    if missing := [n for n in manifest.machine.inputs() if n >= len(names)]:
        raise ValueError(f"the machine needs an input number {min(missing)}")
    if manifest.machine.keeps_ports() and manifest.format == FIRST_FORMAT:
        raise ValueError(f"format {FIRST_FORMAT} has no ports but the console")
    several = manifest.machine.vcpus > 1
    if several and manifest.format <= PORTS_FORMAT:
        raise ValueError(f"format {manifest.format} has one processor")
    if several != isinstance(manifest.scheduler, Scheduler):
        raise ValueError("only several processors have a scheduler, and they need one")
    if manifest.files and set(manifest.files) != set(manifest.own_files()):
        raise ValueError("its files are not those of such a machine")
    if manifest.complete and (manifest.ending == "killed" or not manifest.files):
        raise ValueError("it is not that of a complete recording")
