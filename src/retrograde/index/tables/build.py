"""Building the index: what is missing is replayed, by several processes side by side.

Every interval is written as soon as it is replayed, so that whatever ends the work, a
full disk or a kill, costs no more than the intervals under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from retrograde.errors import EnvironmentLacks, InternalError, UsageError
from retrograde.index.tables import plan, remote, worker
from retrograde.index.tables.cluster import connected
from retrograde.index.tables.files import Interval
from retrograde.index.tables.interval import REPLAYED
from retrograde.index.tables.logtables import LOG_TABLES, build_log_tables
from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.machine.probe.support import require_probe
from retrograde.machine.process import EXIT_SECONDS, finished, send_signal
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.opening import checkpoints_of

Progress = Callable[[int], None]
"""Called with the number of positions done so far."""

DEATHS = 3
"""Workers that may die before that is an error."""


@dataclass
class Report:
    """What building came to: intervals replayed, and `troubles` in words.

    `already` is how many positions of the recording were indexed before.
    """

    intervals: int = 0
    already: int = 0
    troubles: list[str] = field(default_factory=list)


async def build(
    recording: Recording,
    qemu: Qemu | None = None,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    fetch: str | None = None,
    tables: Sequence[str] = (*LOG_TABLES, *REPLAYED),
    surveying: Progress | None = None,
    progress: Progress | None = None,
) -> Report:
    """Make what the index of `recording` lacks of `tables`, in `jobs` processes.

    With `cluster`, the address of a dask scheduler, its workers replay instead; they must
    see the recording under the same path, or get it from the URL `fetch` (see remote).
    Without checkpoints, these are made first; `surveying` is told that replay's position.
    Raises UsageError for an unknown table, EnvironmentLacks without the probe or when the
    disk is full or the cluster cannot be used, and what `remote.Source.of` does; what is
    done stays.
    """
    if fetch and not cluster:
        raise UsageError("Only the workers of a cluster fetch the recording.", "Give --cluster.")
    source = remote.Source.of(recording, fetch) if fetch else None
    unknown = set(tables) - {*LOG_TABLES, *REPLAYED}
    if unknown:
        raise UsageError(
            f"There is no table {min(unknown)!r} to build.",
            f"Choose from {', '.join((*LOG_TABLES, *REPLAYED))}.",
        )
    report, index = Report(), IndexStore(recording)
    report.troubles += await asyncio.to_thread(build_log_tables, index, recording, tables)
    wanted = [name for name in REPLAYED if name in tables]
    if wanted:
        workers = jobs if cluster is None else cluster
        made = [*wanted, "intervals"]
        await _replay(recording, qemu, index, made, workers, source, report, surveying, progress)
    return report


async def _replay(
    recording: Recording,
    qemu: Qemu | None,
    index: IndexStore,
    tables: Sequence[str],
    workers: int | str,
    source: remote.Source | None,
    report: Report,
    surveying: Progress | None,
    progress: Progress | None,
) -> None:
    qemu = qemu if qemu else await asyncio.to_thread(qemu_for, recording)
    await asyncio.to_thread(require_probe, qemu.path)
    if not recording.manifest.ram.seen:
        raise EnvironmentLacks(
            "No index can be made: QEMU keeps the RAM of this machine to itself.",
            "`debug`, `last-write` and the tables of the log (console, interrupts) need none.",
        )
    checkpoints = await checkpoints_of(recording, qemu, progress=surveying, all_whole=True)
    with contextlib.closing(checkpoints):
        facts = await asyncio.to_thread(lambda: LogFacts.read(recording.log()))
        starts = [(one.position, one.seconds) for one in checkpoints.index.checkpoints]
        stretches = plan.stretches(starts, recording.end, facts.clear_from)
        trusted = {one.position for one in checkpoints.checkpoints}
    everything = [interval for stretch in stretches for interval in stretch.intervals]
    maker = f"QEMU {qemu.digest[:16]}, intervals {plan.identity(stretches)}"
    missing = await asyncio.to_thread(_missing, index, maker, tables, everything)
    either = {interval for intervals in missing.values() for interval in intervals}
    report.already = recording.end - sum(last - first for first, last in either)
    if progress:
        progress(report.already)
    count = _Count(either, report, progress)

    def tasks(jobs: int) -> list[worker.Task]:
        return [_task(run, missing) for run in plan.runs(stretches, either, trusted, jobs)]

    if isinstance(workers, str):
        async with connected(workers) as cluster:
            shares = tasks(await cluster.slots())
            await cluster.work(recording, qemu, index, shares, count, source)
    else:
        await _Pool(recording, qemu, deque(tasks(workers)), count).work(workers)


def _missing(
    index: IndexStore, maker: str, tables: Sequence[str], everything: list[Interval]
) -> dict[str, list[Interval]]:
    """Claim the tables, and return which intervals of each are missing."""
    for name in REPLAYED:
        index.claim(name, maker)
    return {name: index.missing(name, everything) for name in tables}


def _task(run: list[Interval], missing: dict[str, list[Interval]]) -> worker.Task:
    inside = set(run)
    return worker.Task(
        run, {name: [one for one in those if one in inside] for name, those in missing.items()}
    )


class _Count:
    """Told each interval that is done, counts those wanted, once."""

    def __init__(self, wanted: set[Interval], report: Report, progress: Progress | None) -> None:
        self._left = wanted
        self._report = report
        self._progress = progress
        self._done = report.already

    def __call__(self, interval: Interval) -> None:
        if interval in self._left:
            self._left.remove(interval)
            self._report.intervals += 1
            self._done += interval[1] - interval[0]
            if self._progress:
                self._progress(self._done)


class _Pool:
    """Workers that take one run after the other."""

    def __init__(
        self,
        recording: Recording,
        qemu: Qemu,
        tasks: deque[worker.Task],
        count: Callable[[Interval], None],
    ) -> None:
        self._recording = recording
        self._qemu = qemu
        self._tasks = tasks
        self._count = count
        self._deaths = 0

    async def work(self, workers: int) -> None:
        """Have all tasks done by so many processes, or fewer."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(workers, len(self._tasks))):
                    group.create_task(self._worker())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _worker(self) -> None:
        while self._tasks:
            process = await asyncio.create_subprocess_exec(
                *worker.arguments(self._recording, self._qemu),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                while self._tasks and await self._give(process):
                    pass
            finally:
                await finished(_end(process))

    async def _give(self, process: asyncio.subprocess.Process) -> bool:
        """Have `process` do the next task; returns False when it died over it."""
        task = self._tasks.popleft()
        if process.stdin is None or process.stdout is None:
            raise InternalError("A worker has no pipes.")
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        while line := await process.stdout.readline():
            answer = msgspec.json.decode(line, type=worker.Done | worker.Failure)
            if isinstance(answer, worker.Failure):
                raise answer.error()
            if answer.interval is None:
                return True
            self._count(answer.interval)
        self._tasks.appendleft(task)
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise EnvironmentLacks(
                f"{self._deaths} processes that replay were killed.",
                "If memory was short, use fewer --jobs; what is done stays.",
            )
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let a worker end: it does when its stdin does, unless it is stopped."""
    if process.stdin:
        process.stdin.close()
    try:
        async with asyncio.timeout(EXIT_SECONDS):
            await process.wait()
    except TimeoutError:
        send_signal(process, signal.SIGKILL)  # its QEMU goes with it
        await process.wait()
