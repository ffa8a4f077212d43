"""What a stranger puts in place of a file or directory of ours, and what must survive it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _full_directory(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_bytes(b"precious")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


KINDS: Mapping[str, Callable[[Path], None]] = {
    "pipe": _pipe,
    "endless": _endless,
    "link": _link,
    "dangling": _dangling,
    "directory": _full_directory,
}


def put(kind: str, path: Path) -> None:
    """Put something of `kind` at `path`, in place of what is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](path)


def make_victim(folder: Path) -> Path:
    """Make a directory of the user's, in which every name is one that we know, too."""
    interval = f"{0:019}-{9:019}.00000000.parquet"
    for name in (
        *("notes.txt", "meta.json", "index.json", "pages.bin", "tables.bin", "machine.qcow2"),
        *("meta.copy.json", "index.copy.json", "sums.bin", f"{0:019}-{9:019}.damaged"),
        *("disk0.qcow2", "bookmarks.json", interval, f"blocks/{interval}", "index/meta.json"),
        *(f"index/blocks/{interval}", f"index/calls/{interval}", "checkpoints/index.json"),
        *("checkpoints/pages.bin", "checkpoints.0123abcd/pages.bin", "docs/thesis.txt"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"precious " * 999)
    return folder


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the digest of every file below `folder`, and of links where they lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = str(path.readlink()).encode() if path.is_symlink() else b"directory"
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found
