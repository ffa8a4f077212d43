"""What a run of retrograde must not leave behind: processes, temporary folders, drafts."""

from __future__ import annotations

import os
import time
from pathlib import Path

MARK = "RETROGRADE_TEST_RUN"
"""An environment variable that every process started by these tests inherits."""

PROMPT_SECONDS = 5.0
"""A killed process may take this long to be gone: the kernel frees its memory first."""


def qemus() -> list[str]:
    """Return the command lines of all QEMUs that inherited our mark and still run."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    return [line for pid in _pids() if (line := _marked_qemu(pid, mark))]


def folders(place: Path) -> list[str]:
    """Return what retrograde has in `place` (our TMPDIR)."""
    return [str(path) for path in place.glob("retrograde-*")]


def drafts(place: Path) -> list[str]:
    """Return the unfinished recordings and archives anywhere below `place`."""
    return [str(path) for path in place.rglob("*.partial")]


def settled_qemus() -> list[str]:
    """Return the QEMUs that do not go away by themselves."""
    until = time.monotonic() + PROMPT_SECONDS
    while (found := qemus()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def _pids() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _marked_qemu(process: Path, mark: bytes) -> str:
    try:
        if not (process / "comm").read_bytes().startswith(b"qemu-"):
            return ""
        # A zombie's environment is empty: it is gone but for its exit status.
        if mark not in (process / "environ").read_bytes().split(b"\0"):
            return ""
        return f"{process.name}: " + (process / "cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:  # ended meanwhile, or somebody else's
        return ""
