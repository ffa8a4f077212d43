"""Build the probe and the scheduler with the system's C compiler, once, into the user's cache.

The sources are in the wheel (`probe_src/`) and, in a checkout, in `probe/`. A library
is named after its sources and compiler, so an upgrade of either builds a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from retrograde.asking import ask
from retrograde.errors import EnvironmentLacks
from retrograde.held import Scratch
from retrograde.machine.userfolder import cannot_keep, user_folder

SOURCES = (
    *("probe.c", "position.c", "execution.c", "memory.c", "delivery.c", "registers.c"),
    *("coverage.c", "control.c", "isa.c", "calls.c", "written.c", "code.c"),
    *("moments.c", "expression.c", "frame.c", "trap.c", "gates.c"),
)
HEADERS = ("probe.h", "probe_page.h", "qemu_plugin_abi.h")
SCHEDULER_SOURCES = (
    *("scheduler.c", "scheduler_layout.c", "scheduler_timer.c", "scheduler_wait.c"),
    *("schedule.c", "policy.c"),
)
SCHEDULER_HEADERS = ("scheduler.h", "qemu_plugin_abi.h")
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden")
BUILD_SECONDS = 60

_WITHOUT = {
    "probe": ", or go on without the probe (slower)",
    "scheduler": ", or record with -smp 1",
}

APIS = (4, 7)
"""Versions of QEMU's plugin API there is a probe for, the commonest first: 4 is that of QEMU
10.0 and 10.1 and taken by 10.2, 7 that of 11.1, which takes no older one."""


def source_folder() -> Path:
    """Return the folder with the probe's C sources."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "probe_src", here.parents[4] / "probe"):
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


def compiler(of: str = "probe") -> str:
    """Return the path of the C compiler: $CC, or cc, gcc, clang, the first that is here."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise EnvironmentLacks(
        f"The {of} needs a C compiler and none is here.",
        f"Install gcc{_WITHOUT[of]}.",
    )


def build_probe(api: int) -> Path:
    """Return the probe's shared library for an `api`, compiled if it is not in the cache yet.

    Raises EnvironmentLacks when there is no compiler or it refuses, and where the library
    cannot be kept.
    """
    return _built("probe", SOURCES, HEADERS, api)


def build_scheduler(api: int) -> Path:
    """Return the scheduler's shared library for an `api`; as `build_probe`."""
    return _built("scheduler", SCHEDULER_SOURCES, SCHEDULER_HEADERS, api)


def _built(name: str, sources: tuple[str, ...], headers: tuple[str, ...], api: int) -> Path:
    folder = source_folder()
    cc = compiler(name)
    paths = [folder / source for source in sources]
    try:
        identity = _identity([*paths, *(folder / header for header in headers)], cc)
        return _kept(f"{name}-{identity}-api{api}.so", name, paths, cc, api)
    except OSError as error:
        place = user_folder("XDG_CACHE_HOME", ".cache")
        raise cannot_keep(f"The {name}", place, error, "XDG_CACHE_HOME") from error


def _kept(file: str, name: str, sources: list[Path], cc: str, api: int) -> Path:
    target = cache_folder() / file
    if target.is_file():
        return target
    with Scratch.swept(target.parent) as folder:
        library = folder / target.name
        done = ask(
            [
                *(cc, *FLAGS, f"-DPROBE_API_VERSION={api}", "-o", str(library)),
                *map(str, sources),
            ],
            f"compiling the {name}",
            seconds=BUILD_SECONDS,
        )
        if done.returncode:
            raise EnvironmentLacks(
                f"{cc} did not compile the {name}.",
                f"Set CC to a C11 compiler{_WITHOUT[name]}.",
                detail=done.stderr,
            )
        library.replace(target)  # atomic: others see all of it or nothing
    return target


def _identity(files: list[Path], cc: str) -> str:
    """Return a digest of all that decides what the library is."""
    digest = hashlib.blake2b(digest_size=10)
    for path in files:
        digest.update(path.read_bytes())
    status = Path(cc).stat()
    digest.update(repr((FLAGS, cc, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()
