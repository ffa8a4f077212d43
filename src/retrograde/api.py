"""The few functions a script or notebook starts with; see `retrograde` for their names."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from retrograde.recording.bundle import Recording

Result = TypeVar("Result")


def open(path: str | os.PathLike[str]) -> Recording:  # noqa: A001 - retrograde.open
    """Open the recording at `path`; see `Recording.open`."""
    return Recording.open(path)


def record(
    output: str | os.PathLike[str],
    arguments: Sequence[str],
    *,
    target: str = "x86_64",
    qemu: str | None = None,
    timeout: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Record the machine that `qemu-system-TARGET ARGUMENTS` would run.

    Returns when the guest ends or after `timeout` seconds; Ctrl-C ends the recording,
    keeps it and raises KeyboardInterrupt. `qemu` names the program (default:
    qemu-system-TARGET on PATH). `progress` is told positions. Raises UsageError,
    EnvironmentLacks or QemuError, see `retrograde.errors`.
    """
    from retrograde.machine.recorder import record as record_machine

    return _run(
        record_machine(
            os.fspath(output),
            list(arguments),
            target=target,
            program=qemu,
            timeout=timeout,
            progress=progress,
        )
    )


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
