"""Whoever dies under `verify`, it says so at once: it waits for gdb and for QEMU.

What it is at when a process is killed is known from what it reports. No test measures time:
who waits for the wrong one ends by its own deadline, and with another error.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.errors import QemuDied
from retrograde.machine.qemu import Qemu
from retrograde.verify.gdbmi import GdbDied
from retrograde.verify.scenario import run_scenario
from tests.command import SECONDS, Done, assert_error, start
from tests.conftest import Record

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]

MOMENTS = [
    "attaching gdb",
    "stepping forward",
    "stepping backward",
    "stepping forward again",
    "running to the end",
    "running backward",
]


def children(pid: int, name: str) -> list[int]:
    """Process ids of the living children of `pid` that are called `name` or longer."""
    found: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile, as those of pools do
            found |= {int(child) for child in (thread / "children").read_text().split()}
    return [child for child in found if comm(child).startswith(name)]


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:  # ended meanwhile
        return ""


def killer(name: str, moment: str, number: int) -> Callable[[str], None]:
    """Return what, told of `moment`, sends the signal to our child called `name`."""

    def told(doing: str) -> None:
        if doing.startswith(moment):
            for child in children(os.getpid(), name):
                os.kill(child, number)

    return told


@pytest.mark.parametrize("moment", MOMENTS)
async def test_qemu_is_killed(recorded: Record, qemu: Qemu, moment: str) -> None:
    report = killer("qemu-system", moment, signal.SIGKILL)
    with pytest.raises(QemuDied, match=f"ended by SIGKILL while {moment}") as caught:
        await run_scenario(recorded(), qemu, steps=2, report=report)
    assert "memory ran out" in caught.value.remedy


async def test_qemu_crashes(recorded: Record, qemu: Qemu) -> None:
    report = killer("qemu-system", "stepping backward", signal.SIGSEGV)
    with pytest.raises(QemuDied, match="ended by SIGSEGV while stepping backward"):
        await run_scenario(recorded(), qemu, steps=2, report=report)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_gdb_is_killed(recorded: Record, qemu: Qemu, moment: str) -> None:
    with pytest.raises(GdbDied, match="gdb was ended by SIGKILL while doing"):
        await run_scenario(recorded(), qemu, steps=2, report=killer("gdb", moment, signal.SIGKILL))


def test_it_is_qemu_that_is_named(recorded: Record) -> None:
    """QEMU is stopped first, so that gdb is already waiting for it when it is killed."""
    with start("verify", recorded().path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as verify:
        try:
            # Before there is a machine, a gdb is asked what it knows.
            while not (children(verify.pid, "gdb") and children(verify.pid, "qemu-system")):
                assert verify.poll() is None, verify.communicate()
            (machine,) = children(verify.pid, "qemu-system")
            os.kill(machine, signal.SIGSTOP)
            os.kill(machine, signal.SIGKILL)
            stdout, stderr = verify.communicate(timeout=SECONDS)
        finally:
            verify.kill()
    done = Done(verify.returncode, stdout, stderr.decode())
    assert_error(done, 4, "qemu-system-x86_64 was ended by SIGKILL while")
