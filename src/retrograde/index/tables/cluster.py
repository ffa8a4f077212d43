"""Runs of intervals replayed by the workers of a dask cluster.

The recording lies in a folder that all machines see under one path, or the workers fetch
it (see remote); its checkpoints are made already. A task is a run: the worker of the cluster
starts a process of ours for it, as the local pool does, which writes the rows. In a shared
folder nothing but names travels. A task may be done twice: files are written under temporary
names, and their bytes depend on nothing but the interval. So a worker that dies costs its
run, which another takes.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from retrograde.errors import EnvironmentLacks, QemuMismatch, RetrogradeError, UsageError
from retrograde.index.tables import remote, worker
from retrograde.index.tables.files import Interval
from retrograde.index.tables.store import IndexStore
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording

SECONDS: Final = 10
"""How long a scheduler, and its first worker, may take to answer."""

RETRIES: Final = 3
"""How often a run is given to another worker."""

Rows: TypeAlias = dict[tuple[str, Interval], bytes]
"""What a worker without the client's folder wrote, by table and interval."""


class Cluster:
    """A connection to a cluster. Made by `connected`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def slots(self) -> int:
        """Return how many runs are replayed side by side now."""
        return sum((await self._client.nthreads()).values())

    async def work(
        self,
        recording: Recording,
        qemu: Qemu,
        index: IndexStore,
        tasks: Sequence[worker.Task],
        done: Callable[[Interval], None],
        source: remote.Source | None = None,
    ) -> None:
        """Have all tasks done; `done` is told each interval.

        With `source`, the workers fetch the recording there, and their rows are put into
        `index` here.

        Raises what a worker met: QemuMismatch where its QEMU is another build than `qemu`,
        RecordingError where it does not see the recording or fetches another.
        EnvironmentLacks when workers die again and again.
        """
        from distributed import as_completed

        where = source or str(recording.path)
        checkpoints = await self._sent_checkpoints(recording) if source else {}
        futures = {
            self._client.submit(
                replay,
                where,
                checkpoints,
                qemu.digest,
                msgspec.json.encode(task),
                retries=RETRIES,
                pure=False,
            ): task
            for task in tasks
        }
        answers = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        async for future in answers:
            task = futures.pop(future)  # the worker need not keep the rows any longer
            with _failures_named(recording):
                answer = await future
            if isinstance(answer, worker.Failure):
                raise answer.error()
            for (table, interval), packed in answer.items():
                index.put(table, interval, packed)
            for interval in task.run:
                done(interval)

    async def _sent_checkpoints(self, recording: Recording) -> Any:
        """Give the checkpoints to all workers, so that they outlive any of these."""
        data = [remote.checkpoints_in(recording)]
        with _failures_named(recording):
            (future,) = await self._client.scatter(data, broadcast=True, hash=False)
        return future


@contextlib.contextmanager
def _failures_named(recording: Recording) -> Iterator[None]:
    """Turn whatever dask, or a worker's Python, raises into EnvironmentLacks."""
    try:
        yield
    except Exception as error:
        raise EnvironmentLacks(
            f"The cluster could not replay {recording.name}: {error}",
            "Look at the workers' logs: each needs this retrograde, QEMU and memory; "
            "what is done stays.",
        ) from error


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Cluster]:
    """Connect to the scheduler at `address`, as tcp://HOST:PORT.

    Raises UsageError for what is no address, EnvironmentLacks when nobody answers, no
    worker is there, or dask.distributed is not installed.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            "A cluster needs the Python package distributed.",
            "Run: pip install 'retrograde[cluster]'",
        ) from error
    if not address.startswith(("tcp://", "tls://")):
        raise UsageError(f"{address!r} is no scheduler.", "Give its address: tcp://HOST:PORT.")
    try:
        client = await Client(  # type: ignore[no-untyped-call]
            address, asynchronous=True, timeout=SECONDS, set_as_default=False
        )
    except (OSError, ValueError) as error:
        raise EnvironmentLacks(
            f"No scheduler answers at {address}.",
            "Start one with `dask scheduler`, or leave --cluster out.",
            str(error),
        ) from error
    try:
        try:
            await client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError as error:
            raise EnvironmentLacks(
                f"The scheduler at {address} has no workers.",
                f"Start some: dask worker {address} --nthreads 1",
            ) from error
        yield Cluster(client)
    finally:
        await client.close()


def replay(
    where: str | remote.Source, checkpoints: remote.Checkpoints, digest: str, task: bytes
) -> Rows | worker.Failure:
    """Replay a run, on a worker of the cluster; returns its rows where they are not shared.

    `where` is the recording's path, or where to fetch it from, to go with `checkpoints`.
    `digest` is that of the QEMU that has to be used. Raises ChildProcessError when our
    process was killed, so that the run is tried again.
    """
    try:
        if isinstance(where, str):
            _replay(Recording.open(where), digest, task)
            return {}
        from distributed import get_worker

        with remote.borrowed(where, checkpoints, Path(get_worker().local_directory)) as recording:
            _replay(recording, digest, task)
            return _rows(recording, task)
    except RetrogradeError as error:
        failure = worker.Failure.of(error)
        return msgspec.structs.replace(
            failure, what=f"The worker on {platform.node()}: {failure.what}"
        )


def _replay(recording: Recording, digest: str, task: bytes) -> None:
    qemu = Qemu.find(recording.manifest.machine.target)
    if qemu.digest != digest:
        raise QemuMismatch(
            f"{qemu.path} is another build of QEMU than the others use.",
            "Install the same QEMU on all machines of the cluster.",
        )
    command = worker.arguments(recording, qemu)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(task + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            answer = msgspec.json.decode(line, type=worker.Done | worker.Failure)
            if isinstance(answer, worker.Failure):
                raise answer.error()
            if answer.interval is None:
                return
    raise ChildProcessError(f"The process that replays was killed: {process.returncode}.")


def _rows(recording: Recording, task: bytes) -> Rows:
    index, missing = IndexStore(recording), msgspec.json.decode(task, type=worker.Task).missing
    return {
        (table, interval): index.packed(table, interval)
        for table, intervals in missing.items()
        for interval in intervals
    }
