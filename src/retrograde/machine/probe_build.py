"""Build the probe with the system's C compiler, once, into the user's cache.

The sources are in the wheel (`probe_src/`) and, in a checkout, in `probe/`. The library
is named after its sources and compiler, so an upgrade of either builds a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from retrograde.errors import EnvironmentLacks
from retrograde.held import Scratch
from retrograde.machine.asking import ask
from retrograde.machine.userfolder import cannot_keep, user_folder

SOURCES = (
    *("probe.c", "position.c", "execution.c", "memory.c", "delivery.c", "registers.c"),
    *("coverage.c", "control.c", "isa.c", "calls.c", "written.c", "code.c"),
    *("moments.c", "expression.c", "frame.c", "trap.c", "gates.c"),
)
HEADERS = ("probe.h", "probe_page.h", "qemu_plugin_abi.h")
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden")
BUILD_SECONDS = 60

APIS = (4, 7)
"""Versions of QEMU's plugin API there is a probe for, the commonest first: 4 is that of QEMU
10.0 and 10.1 and taken by 10.2, 7 that of 11.1, which takes no older one."""


def source_folder() -> Path:
    """Return the folder with the probe's C sources."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "probe_src", here.parents[3] / "probe"):
        if (folder / SOURCES[0]).is_file():
            return folder
    raise EnvironmentLacks(
        "The probe's C sources are not in this installation.",
        "Install retrograde again from a complete wheel or checkout.",
    )


def cache_folder() -> Path:
    """Return the folder for built probes ($XDG_CACHE_HOME/retrograde), made if need be.

    Raises EnvironmentLacks where there is no home directory, OSError when it cannot be made.
    """
    folder = user_folder("XDG_CACHE_HOME", ".cache")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def compiler() -> str:
    """Return the path of the C compiler: $CC, or cc, gcc, clang, the first that is here."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise EnvironmentLacks(
        "The probe needs a C compiler and none is here.",
        "Install gcc, or go on without the probe (slower).",
    )


def build_probe(api: int) -> Path:
    """Return the probe's shared library for an `api`, compiled if it is not in the cache yet.

    Raises EnvironmentLacks when there is no compiler or it refuses, and where the library
    cannot be kept.
    """
    sources = source_folder()
    cc = compiler()
    try:
        return _kept(sources, cc, api)
    except OSError as error:
        place = user_folder("XDG_CACHE_HOME", ".cache")
        raise cannot_keep("The probe", place, error, "XDG_CACHE_HOME") from error


def _kept(sources: Path, cc: str, api: int) -> Path:
    target = cache_folder() / f"probe-{_identity(sources, cc)}-api{api}.so"
    if target.is_file():
        return target
    with Scratch.swept(target.parent) as folder:
        library = folder / target.name
        done = ask(
            [
                *(cc, *FLAGS, f"-DPROBE_API_VERSION={api}", "-o", str(library)),
                *(str(sources / name) for name in SOURCES),
            ],
            "compiling the probe",
            seconds=BUILD_SECONDS,
        )
        if done.returncode:
            raise EnvironmentLacks(
                f"{cc} did not compile the probe.",
                "Set CC to a C11 compiler, or go on without the probe (slower).",
                detail=done.stderr,
            )
        library.replace(target)  # atomic: others see all of it or nothing
    return target


def _identity(sources: Path, cc: str) -> str:
    """Return a digest of all that decides what the library is."""
    digest = hashlib.blake2b(digest_size=10)
    for name in (*SOURCES, *HEADERS):
        digest.update((sources / name).read_bytes())
    status = Path(cc).stat()
    digest.update(repr((FLAGS, cc, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()
