"""A process that replays runs of intervals and writes their rows.

One line of JSON on stdin is one run; each interval done is answered with a line on
stdout, each run with an empty list, and what goes wrong with a last line, before the
process ends. It ends as well when stdin does: with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from retrograde import errors
from retrograde.complaints import Complaints, hush
from retrograde.errors import EnvironmentLacks, InternalError, RetrogradeError
from retrograde.foreign import in_our_words
from retrograde.index.tables.files import Interval
from retrograde.index.tables.interval import Columns, sweep
from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.machine.probe.coverage import capacity_for
from retrograde.machine.probe.support import require_probe
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.opening import probe_for
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import origin_of

LONGEST_LINE: Final = 1 << 26
"""Bytes of a task, at most."""

HOLES: Final = 4 << 30
"""Bytes of physical addresses below the end of RAM that are not RAM, at most."""


class Task(msgspec.Struct, frozen=True):
    """A run of neighbouring intervals, and the tables to be written of those `missing`."""

    run: list[Interval]
    missing: dict[str, list[Interval]]


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """What went wrong: the name of a class in `retrograde.errors`, and its words."""

    kind: str
    what: str
    remedy: str
    detail: str

    @classmethod
    def of(cls, error: RetrogradeError) -> Failure:
        """Put an error in words, to be sent."""
        return cls(type(error).__name__, error.what, error.remedy, error.detail)

    def error(self) -> RetrogradeError:
        """Return the error that was met."""
        kind = getattr(errors, self.kind, InternalError)
        error: RetrogradeError = kind(self.what, self.remedy, self.detail)
        return error


class Done(msgspec.Struct, frozen=True, tag="done"):
    """An interval that is on disk; None at the end of a run."""

    interval: Interval | None


Answer: TypeAlias = Callable[[Done | Failure], None]


def arguments(recording: Recording, qemu: Qemu) -> list[str]:
    """Return the command line of a worker."""
    return [
        sys.executable,
        "-m",
        "retrograde.index.tables.worker",
        str(recording.path),
        str(qemu.path),
    ]


def main() -> None:
    """Serve stdin until it ends."""
    out = os.dup(1)
    os.dup2(2, 1)  # what anybody prints must not look like an answer

    def answer(what: Done | Failure) -> None:
        os.write(out, msgspec.json.encode(what) + b"\n")

    path, program = sys.argv[1:]
    work, complaints = _serve(Path(path), program, answer), Complaints()
    try:
        asyncio.run(work)
        complaints.tell()
    except (BrokenPipeError, asyncio.CancelledError):
        pass  # nobody wants the answers any more
    except Exception as error:
        hush()
        answer(Failure.of(in_our_words(error)))
    finally:
        work.close()  # where no loop could be made nobody has awaited it


async def _serve(path: Path, program: str, answer: Answer) -> None:
    tasks: asyncio.Queue[Task] = asyncio.Queue()
    reading = asyncio.create_task(_read(tasks, asyncio.current_task()))
    try:
        async with _seated(path, program) as (seat, view):
            store = IndexStore(seat.recording)
            while True:
                task = await tasks.get()
                await seat.surviving(functools.partial(_replay, seat, view, store, task, answer))
                answer(Done(None))
    finally:
        reading.cancel()


async def _read(tasks: asyncio.Queue[Task], serving: asyncio.Task[Any] | None) -> None:
    """Pass on what stdin says; at its end nobody is left to work for."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        tasks.put_nowait(msgspec.json.decode(line, type=Task))
    if serving:
        serving.cancel()


@contextlib.asynccontextmanager
async def _seated(path: Path, program: str) -> AsyncIterator[tuple[Seat, MachineView]]:
    recording = Recording.open(path)
    qemu = qemu_for(recording, program)
    store = CheckpointStore.open(recording, origin_of(recording, qemu))
    if store is None:
        raise EnvironmentLacks("The checkpoints were removed meanwhile.", "Start again.")
    facts = LogFacts.read(recording.log())
    capacity = capacity_for(recording.manifest.ram.bytes + HOLES)
    with (
        contextlib.closing(store),
        probe_for(recording, facts, require_probe(qemu.path), capacity) as probe,
    ):
        async with await Seat.take(recording, qemu, store, facts, probe) as seat:
            yield seat, await MachineView.of(seat)


async def _replay(
    seat: Seat, view: MachineView, store: IndexStore, task: Task, answer: Answer
) -> None:
    """Replay a run; rows are written while QEMU runs on."""

    def write(interval: Interval, tables: dict[str, Columns]) -> None:
        for name, missing in task.missing.items():
            if interval in missing:
                store.write(name, *interval, tables[name])
        answer(Done(interval))

    writing: asyncio.Future[None] | None = None
    try:
        async for interval, tables in sweep(seat, view, task.run):
            if writing:
                await writing
            writing = asyncio.ensure_future(asyncio.to_thread(write, interval, tables))
    finally:
        if writing:
            await writing


if __name__ == "__main__":
    main()
