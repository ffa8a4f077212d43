"""`NAME.partial`: who makes it holds it, and what a killed maker left is out of the way.

A packed file or an unpacked folder that never became whole is worth nothing and removed.
What a killed `record` left is a recording as far as it came: if anything was recorded, it
is moved aside and never removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from retrograde.errors import ManifestError, RecordingError, UsageError
from retrograde.held import Held, hold
from retrograde.recording.manifest import MANIFEST_LIMIT, FileName, decode_manifest

PARTIAL = ".partial"

MANIFEST = "manifest.json"
OURS = {MANIFEST, f"{MANIFEST}.new", "reserve", *get_args(FileName)}
"""Names in a folder that we may have begun, beside the folder of inputs."""

_OTHER = "Choose another name or remove it first."

_NO_PLACE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)


def claim_folder(folder: Path, *, may_move: bool) -> tuple[Held | None, Path | None]:
    """Make `folder` ours; return its lock and where what a killed one left was moved to.

    The lock is None where the file system has none. Raises UsageError when it is being
    made by another, or must be moved and `may_move` is false, OSError when it cannot be made.
    """
    aside = None
    if os.path.lexists(folder):
        aside = _out_of_the_way(folder, may_move)
    folder.mkdir(parents=True)
    try:
        return hold(folder, os.O_DIRECTORY, wait=True), aside
    except BaseException:
        folder.rmdir()
        raise


def claim_file(path: Path) -> Held:
    """Make the file `path` ours, empty, and return its lock, open for writing.

    Raises UsageError when it is being made by another or is no file, OSError when it cannot
    be made.
    """
    held = hold(path, os.O_RDWR | os.O_CREAT)
    if held is None:
        raise UsageError(f"{path} is being made by another.", "Wait for it or choose another name.")
    if not stat.S_ISREG(os.fstat(held.fd).st_mode):
        raise UsageError(f"{path} is already there.", _OTHER)
    try:
        os.ftruncate(held.fd, 0)
    except BaseException:
        path.unlink(missing_ok=True)
        held.close()
        raise
    return held


@contextlib.contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """Give the path at which to write what becomes the file `target` when it is whole.

    A file that is there makes way then. What is no file, a pipe or a terminal, is written to
    itself. Raises UsageError when another makes it, or when it cannot be made there.
    """
    with writing(target):
        is_special = target.exists() and not target.is_file()
    if is_special:
        yield target
        return
    final = Path(os.path.realpath(target))
    partial = final.with_name(final.name + PARTIAL)
    with writing(target):
        held = claim_file(partial)
    try:
        yield partial
        with writing(target):
            partial.replace(final)
    except BaseException:
        # Only as long as it is ours: behind `replace` the name is anybody's.
        partial.unlink(missing_ok=True)
        raise
    finally:
        held.close()


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Say of an OSError that it is about `target`; UsageError where that is a wrong place."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise UsageError(
                f"{target} cannot be written: {error.strerror}.", "Choose another place."
            ) from error
        if not error.filename:
            error.filename = str(target)
        raise


def _out_of_the_way(folder: Path, may_move: bool) -> Path | None:
    """Remove what a killed maker left in `folder`, or return where it was moved to."""
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is already there.", _OTHER)
    held = hold(folder, os.O_DIRECTORY)
    if held is None:
        raise UsageError(
            f"{folder} is being made by another.", "Wait for it or choose another name."
        )
    try:
        if _is_worthless(folder):
            shutil.rmtree(folder)
            return None
        if not may_move:
            raise UsageError(f"{folder} is what a killed `record` left.", _OTHER)
        aside = _free_name(folder)
        folder.rename(aside)
        return aside
    finally:
        held.close()


def _is_worthless(folder: Path) -> bool:
    """Tell whether all that is in `folder` is ours, and no execution among it."""
    if {entry.name for entry in os.scandir(folder)} - OURS - {"inputs"}:
        return False
    log = folder / "replay.log"
    if not log.exists() or log.stat().st_size == 0:
        return True
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = decode_manifest(file.read(MANIFEST_LIMIT + 1), folder.name)
    except (OSError, ManifestError, RecordingError):
        return False
    # Only what was unpacked, or is finished but for its name, knows how long its files are.
    return any(
        not (folder / name).exists() or (folder / name).stat().st_size != digest.bytes
        for name, digest in manifest.files.items()
    )


def _free_name(folder: Path) -> Path:
    number = 1
    while os.path.lexists(aside := folder.with_name(f"{folder.name}.{number}")):
        number += 1
    return aside
