"""One file out of a recording and back: tar compressed with zstd.

The archive holds the manifest, the files it names and all inputs (linked ones too),
never the cache. Inputs may be left out, which the manifest still names by size and digest;
whoever unpacks it brings them. Unpacking trusts nothing: members are regular files with
expected names, each is as long as the manifest says, all of them fit on the disk, and digests
are checked before the recording takes its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import msgspec

from retrograde.errors import EnvironmentLacks, ManifestError, RecordingError, UsageError
from retrograde.recording.bases import put_in
from retrograde.recording.bundle import (
    INPUTS,
    MANIFEST,
    Recording,
    disk_errors_named,
)
from retrograde.recording.claim import PARTIAL, claim_folder, made_whole
from retrograde.recording.manifest import (
    MANIFEST_LIMIT,
    FileDigest,
    decode_manifest,
    encode_manifest,
)
from retrograde.recording.sparse import write_sparse

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd as zstd  # "as": others take it from here
else:
    from compression import zstd

SUFFIX = ".tar.zst"
"""What names of packed recordings end in."""

LEVEL = 10
"""zstd level: 10 packs a Linux boot to a few MB in about a second."""

_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,  # the manifest has no digest of its own
}

HEADER_LIMIT = 1 << 16
"""Bytes of a header about one member; a real one has about 50."""

# tarfile itself raises the last three over headers that make no sense.
_DAMAGE = (tarfile.TarError, zstd.ZstdError, EOFError, ValueError, RecursionError, OverflowError)

CHUNK = 1 << 20
"""Bytes unpacked at a time."""

QUOTED = 200
"""Characters of what tarfile says of a stranger's archive, at most."""

_REMEDY = "Take the file from its source again."


def pack(recording: Recording, target: Path, *, without: Collection[str] = ()) -> None:
    """Write `recording` as one file; raises UsageError when `target` is there.

    Inputs named in `without` stay behind. The same recording always gives the same bytes. One
    that was never finished is packed with the digests it lacks. Raises RecordingError when it
    is damaged, UsageError for a name that no input has.
    """
    _check_free(target)
    names = [entry.name for entry in recording.manifest.inputs]
    for name in without:
        if name not in names:
            raise UsageError(
                f"{recording.name} has no input {name}.", f"Its inputs are: {', '.join(names)}."
            )
    with contextlib.ExitStack() as opened:
        _pack(recording, target, without, opened)


def _pack(
    recording: Recording, target: Path, without: Collection[str], opened: contextlib.ExitStack
) -> None:
    manifest = recording.manifest
    taken = [entry for entry in manifest.inputs if entry.name not in without]
    inputs = {entry: opened.enter_context(recording.open_input(entry)) for entry in taken}
    names = manifest.own_files()
    own = {name: opened.enter_context(recording.open_own(name)) for name in names}
    # What was compared is what is packed: nothing is opened twice.
    for entry, file in inputs.items():
        recording.check_input(entry, file)
    found = {name: recording.check_own(name, file) for name, file in own.items()}
    if not manifest.files:
        manifest = msgspec.structs.replace(manifest, files=found)
    members = own | {f"{INPUTS}/{entry.name}": file for entry, file in inputs.items()}
    with (
        disk_errors_named(target),
        made_whole(target) as partial,
        zstd.open(partial, "wb", options=_OPTIONS) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        # First, so that unpacking knows what may follow.
        _add(tar, io.BytesIO(encode_manifest(manifest)), MANIFEST)
        for name, file in members.items():
            _add(tar, file, name)


def unpack(archive: Path, target: Path, *, bases: Sequence[Path] = ()) -> Recording:
    """Restore a packed recording as the directory `target` and open it.

    `bases` are inputs it was packed without, which are known by their digests. Raises
    UsageError when `target` is there or a base is none, RecordingError (ManifestError) when
    the archive is damaged, holds what a recording does not, or lacks what no base is,
    EnvironmentLacks when it is more than the disk holds.
    """
    final = target.absolute()
    folder = final.with_name(final.name + PARTIAL)
    _check_free(final)
    with disk_errors_named(folder):
        held, _ = claim_folder(folder, may_move=False)
    try:
        with disk_errors_named(folder):
            (folder / INPUTS).mkdir()
        put_in(bases, _extract(archive, folder), folder, archive)
        recording = Recording.open(folder)
        recording.check_digests()
        recording.check_inputs()
        with disk_errors_named(final):
            folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held:
            held.close()
    return Recording.open(final)


def _check_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is already there.", "Choose another name or remove it first.")


class _Member(tarfile.TarInfo):
    """A member that is a plain file, or a short header about the next one.

    tarfile reads headers of any announced length into memory, and only then returns.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        is_header = self.type == tarfile.XHDTYPE and self.size <= HEADER_LIMIT
        if self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) and not is_header:
            raise RecordingError(f"The archive holds {self.name!r}, no plain file.", _REMEDY)
        processed: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return processed


def _add(tar: tarfile.TarFile, file: BinaryIO, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = file.seek(0, os.SEEK_END)
    info.mode = 0o644
    file.seek(0)
    tar.addfile(info, file)


def _extract(archive: Path, folder: Path) -> dict[str, FileDigest]:
    """Unpack all members; return what the manifest names and the archive does not hold."""
    allowed: dict[str, FileDigest] | None = None
    try:
        with (
            zstd.open(archive, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar,
        ):
            for member in tar:
                content = tar.extractfile(member)
                if content is None or member.sparse is not None:
                    raise RecordingError(f"{archive} holds {member.name!r}, no file.", _REMEDY)
                if allowed is None:
                    allowed = _take_manifest(member, content, folder, archive)
                else:
                    _take_file(member, content, folder, allowed)
            # Read on to the checksum at the end of the zstd frame.
            if len(stream.read(tarfile.RECORDSIZE + 1)) > tarfile.RECORDSIZE:
                raise RecordingError(f"{archive} goes on after its end.", _REMEDY)
    except _DAMAGE as error:
        why = " ".join(str(error).split())[:QUOTED] or type(error).__name__
        raise RecordingError(f"{archive} is not a packed recording: {why}.", _REMEDY) from error
    except OSError as error:
        raise UsageError(
            f"{archive} cannot be read: {error.strerror}.", "Name a file made by pack."
        ) from error
    if allowed is None:
        raise RecordingError(f"{archive} is empty.", _REMEDY)
    return allowed


def _take_manifest(
    member: tarfile.TarInfo, content: IO[bytes], folder: Path, archive: Path
) -> dict[str, FileDigest]:
    """Keep the manifest and return size and digest of each file that may follow."""
    if member.name != MANIFEST:
        raise RecordingError(f"{archive} does not begin with a {MANIFEST}.", _REMEDY)
    data = content.read(MANIFEST_LIMIT + 1)
    manifest = decode_manifest(data, archive.name)
    with disk_errors_named(folder):
        (folder / MANIFEST).write_bytes(data)
    allowed = {str(name): digest for name, digest in manifest.files.items()}
    allowed |= {
        f"{INPUTS}/{entry.name}": FileDigest(bytes=entry.bytes, sha256=entry.sha256)
        for entry in manifest.inputs
    }
    total, free = sum(digest.bytes for digest in allowed.values()), shutil.disk_usage(folder).free
    if total > free:
        raise EnvironmentLacks(
            f"{archive} unpacks to {total:_} bytes and {folder.parent} has space for {free:_}.",
            "Free some space or choose another place.",
        )
    return allowed


def _take_file(
    member: tarfile.TarInfo, content: IO[bytes], folder: Path, allowed: dict[str, FileDigest]
) -> None:
    """Keep a file; the first that is not the manifest's is the last that is unpacked."""
    expected = allowed.pop(member.name, None)
    if expected is None:
        raise ManifestError(f"The archive holds {member.name!r}, not in its manifest.", _REMEDY)
    if member.size != expected.bytes:
        raise RecordingError(
            f"{member.name} has {member.size} bytes, not {expected.bytes}.", _REMEDY
        )
    digest = hashlib.sha256()
    with disk_errors_named(folder), (folder / member.name).open("xb") as file:
        while data := content.read(CHUNK):
            digest.update(data)
            write_sparse(file, data)
        file.truncate(expected.bytes)
    if digest.hexdigest() != expected.sha256:
        raise RecordingError(f"{member.name} is not what was recorded.", _REMEDY)
