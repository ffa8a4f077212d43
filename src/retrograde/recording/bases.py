"""Inputs that an archive was packed without, put in from files that whoever unpacks it names.

An image that many recordings begin with need not be in each. The manifest names it by size and
digest, and only what has that digest takes its place.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from retrograde.errors import RecordingError, UsageError
from retrograde.recording.bundle import COPY_LIMIT, INPUTS, digest_file, disk_errors_named
from retrograde.recording.folder import open_regular
from retrograde.recording.manifest import FileDigest


def put_in(
    bases: Sequence[Path], absent: Mapping[str, FileDigest], folder: Path, archive: Path
) -> None:
    """Put `bases` where inputs are absent in the recording that is unpacked in `folder`.

    Small ones are copied, large ones linked, as when recording. Raises UsageError for a file
    that is none of them, RecordingError where one is left over.
    """
    left = {name: file for name, file in absent.items() if name.startswith(f"{INPUTS}/")}
    for base in bases:
        found = _put_in(base, left, folder)
        if not found:
            wanted = "".join(f" {_told(name, file)}." for name, file in left.items())
            raise UsageError(
                f"{base} is no input that {archive} lacks.", f"It lacks:{wanted or ' nothing.'}"
            )
        for name in found:
            del left[name]
    if left:
        name, file = next(iter(left.items()))
        raise RecordingError(
            f"{archive} was packed without {_told(name, file)}.", "Name that file: --base FILE."
        )


def _put_in(base: Path, left: Mapping[str, FileDigest], folder: Path) -> list[str]:
    """Put a file in wherever its digest is; return the names."""
    try:
        with open_regular(base, follow=True) as file:
            digest = digest_file(file, base.name)
            found = [name for name, wanted in left.items() if wanted == digest]
            for name in found:
                target = folder / name
                with disk_errors_named(folder):
                    if digest.bytes > COPY_LIMIT:
                        target.symlink_to(base.resolve())
                        continue
                    file.seek(0)
                    with target.open("xb") as copy:
                        shutil.copyfileobj(file, copy)
            return found
    except OSError as error:
        raise UsageError(
            f"{base} cannot be read: {error.strerror}.", "Name a disk image or another input."
        ) from error


def _told(name: str, file: FileDigest) -> str:
    return f"{name} of {file.bytes:_} bytes, SHA-256 {file.sha256}"
