"""The matrix: which boards of which QEMUs can be recorded, replayed and reversed.

Every cell is tried in a process of its own with a deadline, several side by side as far
as memory goes, so that a QEMU that hangs or crashes costs one cell. What was found is
kept by the digests of QEMU and guest: a matrix that was interrupted goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from retrograde.held import Scratch
from retrograde.machine.process import finished, send_signal
from retrograde.verify.matrixmodel import Began, Cell, Check, Found, Learned, Line, Subject

GRACE_SECONDS = 10.0
"""A trial that was told to end may take so long to give everything back."""

SHARE = 0.8
"""How much of the memory that is free at the start the trials may plan with."""

LINE_BYTES = 1 << 22

BEGIN = "begin"
"""In place of a check's name: what failed is the trial, which says nothing of the board."""

Report = Callable[[Subject, str], object]
"""Told of a cell and what is being done: a check's name, "" when it is over."""


async def run_matrix(
    subjects: Sequence[Subject],
    *,
    cache: Path,
    jobs: int,
    deadline: float,
    again: bool = False,
    report: Report = lambda _subject, _doing: None,
) -> list[Cell]:
    """Try all `subjects`, `jobs` at a time, each within `deadline` seconds.

    Results in `cache` are taken from there unless `again`. A cell that needs more memory
    than there is comes back as absent.
    """
    cache.mkdir(parents=True, exist_ok=True)
    memory = _Memory(int(available_memory() * SHARE))
    turns = asyncio.Semaphore(jobs)

    async def cell_of(subject: Subject) -> Cell:
        kept = cache / f"{subject.key()}.json"
        cell = None if again else _read(kept)
        if cell is None:
            if subject.memory > memory.size:
                return absent(subject, _too_large(subject.memory, memory.size))
            async with memory.holding(subject.memory), turns:
                cell = await try_cell(subject, deadline, report)
            if cell.failure is None or cell.failure.name != BEGIN:
                _write(kept, cell)
        report(subject, "")
        return cell

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(cell_of(subject)) for subject in subjects]
    return [task.result() for task in tasks]


async def try_cell(
    subject: Subject, deadline: float, report: Report = lambda _subject, _doing: None
) -> Cell:
    """Try one cell in a process of its own; whatever happens there becomes its result."""
    cell = Cell(
        target=subject.target,
        board=subject.board,
        guest=subject.guest,
        version=subject.version,
        qemu_sha256=subject.qemu_sha256,
    )
    doing, began = BEGIN, time.monotonic()

    def take(line: Line) -> None:
        nonlocal doing, began
        match line:
            case Began(name):
                doing, began = name, time.monotonic()
                report(subject, name)
            case Found(check):
                cell.checks.append(check)
            case Learned():
                cell.end, cell.quirks, cell.probe = line.end, line.quirks, line.probe

    failure = await _run_trial(subject, deadline, take)
    if failure:
        text, evidence = failure
        seconds = time.monotonic() - began
        cell.checks.append(
            Check(name=doing, outcome="no", text=text, evidence=evidence, seconds=seconds)
        )
    return cell


async def _run_trial(
    subject: Subject, deadline: float, take: Callable[[Line], None]
) -> tuple[str, str] | None:
    """Run the process; return what it failed with (a sentence, evidence), None for nothing."""
    with Scratch() as folder:
        process = await _start(folder)
        try:
            said = asyncio.ensure_future(_talk(process, subject, take))
            done, _ = await asyncio.wait((said,), timeout=deadline)
            if not done:
                said.cancel()
                return f"It was not done within {deadline:g} s.", ""
            status, stderr = said.result(), _tail(folder / "stderr")
            return (f"The trial itself ended with status {status}.", stderr) if status else None
        finally:
            await finished(_end(process))


async def _start(folder: Path) -> asyncio.subprocess.Process:
    """Start a trial; the kernel ends it when we die, and its QEMUs when it dies."""
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    stderr = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    try:
        return await asyncio.create_subprocess_exec(
            *guard,
            *(sys.executable, "-m", "retrograde.verify.matrixtrial"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,
            limit=LINE_BYTES,
        )
    finally:
        os.close(stderr)


async def _talk(
    process: asyncio.subprocess.Process, subject: Subject, take: Callable[[Line], None]
) -> int:
    """Give the subject, take what is found, and return the exit status."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(ConnectionError):  # it crashed at once: its status tells
        process.stdin.write(msgspec.json.encode(subject))
        await process.stdin.drain()
        process.stdin.close()
    async for line in process.stdout:
        take(msgspec.json.decode(line, type=Line))
    return await process.wait()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a trial with all its processes: asked first, so that it can clean up."""
    if process.returncode is not None:
        return
    send_signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await process.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


class _Memory:
    """Memory shared out among trials, in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size
        self._freed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def holding(self, amount: int) -> AsyncIterator[None]:
        """Take `amount`, as soon as it is there, while the context lasts."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            async with self._freed:
                self._left += amount
                self._freed.notify_all()


def absent(subject: Subject, why: str) -> Cell:
    """Return the result of a cell that cannot be tried."""
    return Cell(
        target=subject.target,
        board=subject.board,
        guest=subject.guest,
        version=subject.version,
        qemu_sha256=subject.qemu_sha256,
        absent=why,
    )


def available_memory() -> int:
    """Return how many bytes can be taken: of the machine's, and of our control group's."""
    info = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(info["MemAvailable"].split()[0]) << 10
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    return free


def _too_large(needed: int, size: int) -> str:
    return f"not tried: it takes about {needed >> 20} MB of memory, and {size >> 20} are free"


def _tail(path: Path) -> str:
    return path.read_bytes()[-4000:].decode(errors="replace").strip()


def _read(path: Path) -> Cell | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cell)
    except (OSError, msgspec.DecodeError):
        return None


def _write(path: Path, cell: Cell) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(cell))
    new.replace(path)
