"""Programs started by a test die with it, however it ends."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def tied(argv: Sequence[str]) -> list[str]:
    """Return `argv` so that the kernel kills the program when this thread is gone.

    PR_SET_PDEATHSIG, set by util-linux's setpriv where there is one: running Python between
    fork and exec is not safe beside threads. setpriv executes the program in its own place,
    so the process id is the program's.
    """
    setpriv = shutil.which("setpriv")
    return [*((setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()), *argv]
