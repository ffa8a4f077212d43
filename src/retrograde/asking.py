"""Programs that are run to be asked one thing: QEMU's `--version`, qemu-img, the compiler.

That one was killed is no answer. Where memory runs out the kernel kills what is largest,
and whoever takes the silence for an answer blames the program.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from retrograde.errors import EnvironmentLacks, QemuDied

KILLED = "If nobody killed it, memory ran out: free some, or raise the limit."


def ask(
    argv: Sequence[str | os.PathLike[str]],
    doing: str,
    *,
    seconds: float,
    stdin: str = "",
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end; whether it exited with 0 is for the caller to judge.

    It has `stdin` as a file from the start, so that a QEMU that is told to quit in the end
    does, whatever becomes of us. `doing` completes "while" in a message. Raises
    EnvironmentLacks when it cannot be started or takes longer than `seconds`, QemuDied when a
    signal ended it.
    """
    program = Path(argv[0]).name
    try:
        with os.fdopen(os.memfd_create("stdin"), "w+b") as script:
            script.write(stdin.encode())
            script.seek(0)
            done = subprocess.run(
                argv,
                stdin=script,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                pass_fds=pass_fds,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"no answer within {seconds:g} s"
        raise EnvironmentLacks(
            f"{argv[0]} does not run ({doing}): {why}.", "Check the program, and its permissions."
        ) from error
    if done.returncode < 0:
        raise QemuDied(
            f"{program} {how_it_ended(done.returncode)} while {doing}.",
            KILLED,
            done.stderr,
        )
    return done


def how_it_ended(status: int) -> str:
    """Return what a process did, of which subprocess tells `status`: negative for a signal."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # one of the real-time signals
        return f"was ended by signal {-status}"
