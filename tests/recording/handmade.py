"""A recording of a few bytes that nobody recorded, for tests that run no QEMU."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from retrograde.recording.bundle import Recording, digests
from retrograde.recording.machinespec import File, MachineSpec, Serial
from retrograde.recording.manifest import (
    InputFile,
    Manifest,
    QemuIdentity,
    Ram,
    encode_manifest,
)
from tests.recording.rrlog_writer import FINALIZED

KERNEL = b"kernel"
CONSOLE = b"hello\n"
END = 1000

_LOG = FINALIZED + b"".join(
    (
        b"\x00" + END.to_bytes(4, "big"),  # INSTRUCTION
        len(CONSOLE) * b"\x16\0\0\0\x01\0\0\0\x01",  # CHAR_WRITE
        b"\x10",  # SHUTDOWN by the guest
        b"\x0e\x27",  # SHUTDOWN by a signal, END: how QEMU ends every log
    )
)


def make_recording(folder: Path) -> Recording:
    """Write a complete recording whose parts fit together, and open it."""
    (folder / "inputs").mkdir(parents=True)
    (folder / "inputs" / "kernel").write_bytes(KERNEL)
    (folder / "replay.log").write_bytes(_LOG)
    (folder / "console.log").write_bytes(CONSOLE)
    (folder / "machine.qcow2").write_bytes(bytes(4096))
    manifest = Manifest(
        tool="retrograde test",
        created="2026-01-01T00:00:00+00:00",
        qemu=QemuIdentity(version="10.0.2", sha256="0" * 64),
        machine=MachineSpec("x86_64", (File("kernel", 0), Serial("console"))),
        ram=Ram(bytes=1 << 20, shared=True),
        snapshot=True,
        inputs=(InputFile("kernel", hashlib.sha256(KERNEL).hexdigest(), len(KERNEL)),),
        complete=True,
        ending="guest-shutdown",
        end=END,
        events={"instruction": 1},
        files=digests(folder, ("replay.log", "console.log", "machine.qcow2")),
    )
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return Recording.open(folder)


def replaced(recording: Recording, **fields: Any) -> Manifest:
    """Return the manifest of `recording` with other `fields`; writes nothing."""
    return msgspec.structs.replace(recording.manifest, **fields)
