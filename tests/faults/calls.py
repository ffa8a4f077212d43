"""Failure by call number: each open, read, write … of a command fails once, one by one.

shim.c counts the system calls of our processes, inject/sitecustomize.py requests to QEMU.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrograde import __file__ as package
from tests.faults.fault import ANY_FAILURE, NO_MEMORY, Fault
from tests.faults.place import Place
from tests.faults.processes import Setting

HERE = Path(__file__).parent

ERRORS: Mapping[str, int] = {
    "open": errno.EMFILE,
    "read": errno.EIO,
    "write": errno.ENOSPC,
    "mmap": errno.ENOMEM,
    "fork": errno.EAGAIN,
    "name": errno.EIO,
    "space": errno.ENOSPC,
    "socket": errno.EMFILE,
    "memory": errno.ENOMEM,
}
"""What a system call of each kind fails with.

"name" is what changes names (rename, unlink, mkdir), "space" what asks for room or for
what was written to be on disk, "memory" an mmap without a file, "fork" also a thread.
"""

REQUESTS = ("qmp", "rsp")

ACTS = ("kill", "refuse", "close")
"""What befalls a request to QEMU: QEMU dies, does not know it, or the connection ends."""

KINDS = (*ERRORS, *REQUESTS)
_COUNTS = struct.Struct(f"{len(KINDS) + 1}Q")
COUNTS = "counts"

SEQUENCE = (
    ("record", True),
    ("info", True),
    ("debug", False),
    ("index", False),
    ("query", True),
)
"""The commands whose calls all fail in the long version, and whether there is a cache."""


def why_not() -> str:
    """Return why no call can be made to fail here; empty where they can."""
    return "" if shutil.which("cc") else "there is no C compiler for what is preloaded"


@functools.cache
def _shim(folder: Path) -> Path:
    """Build what is preloaded, once, in `folder`."""
    library = Path(tempfile.mkdtemp(prefix="shim", dir=folder)) / "shim.so"
    words = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library)]
    subprocess.run([*words, str(HERE / "shim.c"), "-ldl"], check=True)
    return library


def _environment(place: Place) -> dict[str, str]:
    counts = place.root / COUNTS
    if not counts.exists():
        counts.write_bytes(bytes(4096))
    pythons = {sys.prefix, sys.base_prefix + "/lib", sysconfig.get_path("stdlib"), "/usr/lib"}
    return {
        "LD_PRELOAD": str(_shim(place.root.parent)),
        "PYTHONPATH": f"{HERE / 'inject'}:{Path(package).parents[1]}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FAULTS_COUNTS": str(counts),
        "FAULTS_IN": "all",
        "FAULTS_PASS_OVER": ":".join(sorted({*pythons, "/lib", str(Path(package).parent)})),
    }


def counting(place: Place) -> Setting:
    """Have calls counted, and none fail."""
    return Setting(_environment(place))


def counts(place: Place) -> dict[str, int]:
    """Return how many calls of each kind there were, and how many failed."""
    data = (place.root / COUNTS).read_bytes()[: _COUNTS.size]
    return dict(zip((*KINDS, "failed"), _COUNTS.unpack(data), strict=True))


def at(what: Fault, kind: str, number: int, *, sent: int = 0, act: str = "") -> Fault:
    """Have a fault come at a call: an error, the signal `sent`, or `act` for a request."""

    def setting(place: Place) -> Setting:
        chosen = {
            "FAULTS_KIND": kind,
            "FAULTS_NUMBER": str(number),
            "FAULTS_ERRNO": str(ERRORS.get(kind, 0)),
            "FAULTS_SIGNAL": str(sent),
            "FAULTS_ACT": act,
        }
        return Setting(_environment(place) | chosen)

    def met(place: Place) -> bool:
        return counts(place)["failed"] > 0

    return dataclasses.replace(what, setting=setting, met=met)


def fault(kind: str, number: int, act: str) -> Fault:
    """Make the fault that one call of a command fails."""
    how = act or errno.errorcode[ERRORS[kind]]
    failing = Fault(
        f"{kind} {number}: {how}",
        allowed=ANY_FAILURE,
        ends=NO_MEMORY if kind == "memory" else (),
        shortens=kind in REQUESTS,
        # What cannot be written may be the sentence itself.
        may_be_silent=kind == "write",
    )
    return at(failing, kind, number, act=act)


def sweep(totals: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, bool, str, int, str]]:
    """Yield all calls of the sequence: command, cache, kind, number and act."""
    for command, cache in SEQUENCE:
        for kind, total in totals[command].items():
            for number in range(1, total + 1):
                if kind in REQUESTS:
                    yield from ((command, cache, kind, number, act) for act in ACTS)
                elif kind in ERRORS:
                    yield command, cache, kind, number, ""
