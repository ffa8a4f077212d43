"""Which gdb to start: one that is installed and knows the guest's architecture."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from retrograde.errors import EnvironmentLacks
from retrograde.isa.isa import Isa

PATIENCE: Final = ("-l", "3600")
"""Options for every gdb we start: seconds it waits for an answer. It gives up after 2 unless
told otherwise, and takes answers that come later for those to its next questions."""

NOT_ITS_SCRIPTS: Final = (
    *("-iex", "set auto-load no"),
    *("-iex", "set auto-connect-native-target off"),
)
"""Options for a gdb that gets a stranger's ELF file: it loads no scripts that are in the file,
beside it or in the working directory, whatever ~/.gdbinit takes for safe, and `run` does not
run the file here. They come after ~/.gdbinit, and before anything else is read (GDB manual,
"Startup")."""

_CANDIDATES: Final = ("gdb", "gdb-multiarch")
"""In this order: the first is the host's own, and the second knows all architectures."""

_SECONDS: Final = 60.0
"""How long a gdb may take to answer a question; a tenth of a second is usual."""


def gdb_for(isa: Isa, program: str | None = None) -> str:
    """Return the path of a gdb that knows the architecture of `isa`.

    That is `program` if one is named, else the first there is. Raises EnvironmentLacks when
    it is not installed, or does not know the architecture.
    """
    paths = _installed((program,) if program else _CANDIDATES)
    if not paths:
        raise EnvironmentLacks(
            f"{program or _CANDIDATES[0]} is not installed.",
            "Install it: apt-get install gdb (gdb-multiarch for foreign guests)",
        )
    for path in paths:
        if _knows(path, isa):
            return path
    able = [path for path in _installed(_CANDIDATES) if program and _knows(path, isa)]
    raise EnvironmentLacks(
        f"{' and '.join(paths)} cannot debug {isa.gdb_architecture}.",
        f"Leave --gdb out: {able[0]} can."
        if able
        else "Install one for all architectures: apt-get install gdb-multiarch",
    )


def _installed(names: Sequence[str]) -> list[str]:
    return [path for name in names if (path := shutil.which(name))]


def _knows(path: str, isa: Isa) -> bool:
    """Ask a gdb: it shows the architecture it was told, unless it does not know it."""
    ask = ("-ex", f"set architecture {isa.gdb_architecture}", "-ex", "show architecture")
    try:
        done = subprocess.run(
            [path, "-nx", "-q", "-batch", *ask],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return f'"{isa.gdb_architecture}"'.encode() in done.stdout
