"""One file out of a recording and back: tar compressed with zstd.

The archive holds the manifest, the files it names and all inputs (linked ones too),
never the cache. Unpacking trusts nothing: members are regular files with expected
names, each is as long as the manifest says, and digests are checked before the
recording takes its final name.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from retrograde.errors import ManifestError, RecordingError, UsageError
from retrograde.recording.bundle import (
    CONSOLE,
    IMAGE,
    INPUTS,
    LOG,
    MANIFEST,
    PARTIAL,
    Recording,
    disk_errors_named,
)
from retrograde.recording.manifest import MANIFEST_LIMIT, Manifest, decode_manifest

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

LEVEL = 10
"""zstd level: 10 packs a Linux boot to a few MB in about a second."""

_REMEDY = "Take the file from its source again."


def pack(recording: Recording, target: Path) -> None:
    """Write `recording` as one file; raises UsageError when `target` is there.

    The same recording always gives the same bytes.
    """
    recording.check_inputs()
    if target.exists():
        raise UsageError(f"{target} is already there.", "Choose another name or remove it first.")
    partial = target.with_name(target.name + PARTIAL)
    try:
        with (
            disk_errors_named(target),
            zstd.open(partial, "wb", level=LEVEL) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name in _members(recording.manifest):
                _add(tar, recording.path / name, name)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive: Path, target: Path) -> Recording:
    """Restore a packed recording as the directory `target` and open it.

    Raises UsageError when `target` is there, RecordingError (ManifestError) when the
    archive is damaged or holds what a recording does not.
    """
    final = target.absolute()
    folder = final.with_name(final.name + PARTIAL)
    for taken in (final, folder):
        if taken.exists():
            raise UsageError(
                f"{taken} is already there.", "Choose another name or remove it first."
            )
    try:
        with disk_errors_named(folder):
            (folder / INPUTS).mkdir(parents=True)
        _extract(archive, folder)
        recording = Recording.open(folder)
        recording.check_digests()
        recording.check_inputs()
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Recording.open(final)


def _members(manifest: Manifest) -> Iterator[str]:
    yield MANIFEST  # first, so that unpacking knows what may follow
    yield from (LOG, CONSOLE, IMAGE)
    yield from (f"{INPUTS}/{entry.name}" for entry in manifest.inputs)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    with path.open("rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        info.mode = 0o644
        tar.addfile(info, file)


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zstd.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            allowed: dict[str, int] | None = None
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise RecordingError(f"{archive} holds {member.name!r}, no file.", _REMEDY)
                if allowed is None:
                    allowed = _take_manifest(member, content, folder, archive)
                else:
                    _take_file(member, content, folder, allowed)
    except (tarfile.TarError, zstd.ZstdError, EOFError) as error:
        raise RecordingError(f"{archive} is not a packed recording: {error}.", _REMEDY) from error
    except FileNotFoundError as error:
        raise UsageError(f"{archive} is not there.", "Name a file made by pack.") from error
    if allowed is None:
        raise RecordingError(f"{archive} is empty.", _REMEDY)


def _take_manifest(
    member: tarfile.TarInfo, content: IO[bytes], folder: Path, archive: Path
) -> dict[str, int]:
    """Keep the manifest and return the sizes in bytes of the files that may follow."""
    if member.name != MANIFEST:
        raise RecordingError(f"{archive} does not begin with a {MANIFEST}.", _REMEDY)
    data = content.read(MANIFEST_LIMIT + 1)
    manifest = decode_manifest(data, archive.name)
    (folder / MANIFEST).write_bytes(data)
    sizes = {str(name): digest.bytes for name, digest in manifest.files.items()}
    return sizes | {f"{INPUTS}/{entry.name}": entry.bytes for entry in manifest.inputs}


def _take_file(
    member: tarfile.TarInfo, content: IO[bytes], folder: Path, allowed: dict[str, int]
) -> None:
    size = allowed.pop(member.name, None)
    if size is None:
        raise ManifestError(f"The archive holds {member.name!r}, not in its manifest.", _REMEDY)
    if member.size != size:
        raise RecordingError(f"{member.name} has {member.size} bytes, not {size}.", _REMEDY)
    with disk_errors_named(folder), (folder / member.name).open("xb") as file:
        shutil.copyfileobj(content, file)
