"""manifest.json: what was recorded, as strictly typed data.

Opening a recording is opening data from a stranger: unknown fields, wrong types and
names that point anywhere but into the recording are refused here, before anything
else looks at them. The command line is not in it; it is rebuilt from `machine`
(see machinespec) through an allow-list.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from retrograde.errors import FormatTooNew, ManifestError
from retrograde.recording.machinespec import MachineSpec

FORMAT = 1
"""Version of the recording directory. Bump it with every change old readers cannot read."""

MANIFEST_LIMIT = 1 << 20
"""Bytes a manifest may have; a real one has about 3 kB."""

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Line = Annotated[str, msgspec.Meta(max_length=4096)]

Ending = Literal[
    "guest-shutdown", "guest-reset", "guest-panic", "timeout", "interrupted", "quit", "killed"
]
"""How the recorded execution ended. The last one only with `complete` false."""


class QemuIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The QEMU that made the recording: only the same binary replays it for sure."""

    version: Line
    sha256: Sha256


class Ram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Guest RAM: its size in bytes, and whether it is a shared memory file."""

    bytes: Count
    shared: bool


class InputFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file the machine was started with, kept as `inputs/NAME`."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}$")]
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

    format: int = FORMAT
    tool: Line
    created: Line
    qemu: QemuIdentity
    machine: MachineSpec
    ram: Ram
    snapshot: bool
    quirks: tuple[Line, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    complete: bool = False
    ending: Ending = "killed"
    end: Count = 0
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    status: Annotated[int, msgspec.Meta(ge=-128, le=255)] = 0
    events: dict[Line, Count] = {}
    files: dict[Literal["replay.log", "console.log", "machine.qcow2"], FileDigest] = {}


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, name: str) -> Manifest:
    """Parse and validate a manifest; `name` is the recording's, for messages.

    Raises ManifestError or FormatTooNew.
    """
    remedy = "The recording is damaged or not made by retrograde; record it again."
    if len(data) > MANIFEST_LIMIT:
        raise ManifestError(f"The manifest of {name} is absurdly large.", remedy)
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"The manifest of {name} is not valid: {error}.", remedy) from error
    if version > FORMAT:
        raise FormatTooNew(
            f"{name} has format {version}, this retrograde reads up to {FORMAT}.",
            "Install a newer retrograde.",
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"The manifest of {name} is not valid: {error}.", remedy) from error
    _check(manifest, name, remedy)
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


def _check(manifest: Manifest, name: str, remedy: str) -> None:
    names = [file.name for file in manifest.inputs]
    if len(set(names)) != len(names):
        raise ManifestError(f"The manifest of {name} names an input twice.", remedy)
    if manifest.complete and manifest.ending == "killed":
        raise ManifestError(f"The manifest of {name} contradicts itself.", remedy)
