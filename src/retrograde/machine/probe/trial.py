"""Trying whether a QEMU loads a plugin, on a machine without processors or devices."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

from retrograde.asking import ask

TRIAL_SECONDS = 30

_MACHINE = ("-M", "none", "-accel", "tcg", "-nodefaults", "-display", "none", "-S")
_QUIT = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'


def start_with(qemu: Path, plugin: str, fd: int, doing: str) -> CompletedProcess[str]:
    """Start `qemu` with the value `plugin` of -plugin, which uses `fd`, and have it end at once.

    Raises as `ask` does; `doing` says what for.
    """
    return ask(
        [qemu, *_MACHINE, "-qmp", "stdio", "-plugin", plugin],
        doing,
        seconds=TRIAL_SECONDS,
        stdin=_QUIT,
        pass_fds=[fd],
    )
