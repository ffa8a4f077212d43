"""Runs of intervals replayed by the workers of a dask cluster.

The recording lies in a folder that all machines see under one path; its checkpoints are
there already. A task is a run: the worker of the cluster starts a process of ours for it,
as the local pool does, which writes the rows. Nothing but names travels, and a task may be
done twice: files are written under temporary names, and their bytes depend on nothing but
the interval. So a worker that dies costs its run, which another takes.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import msgspec

from retrograde.errors import EnvironmentLacks, QemuMismatch, RetrogradeError, UsageError
from retrograde.index import worker
from retrograde.index.store import Interval
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording

SECONDS: Final = 10
"""How long a scheduler, and its first worker, may take to answer."""

RETRIES: Final = 3
"""How often a run is given to another worker."""


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
        tasks: Sequence[worker.Task],
        done: Callable[[Interval], None],
    ) -> None:
        """Have all tasks done; `done` is told each interval.

        Raises what a worker met: QemuMismatch where its QEMU is another build than `qemu`,
        RecordingError where it does not see the recording. EnvironmentLacks when workers
        die again and again.
        """
        from distributed import as_completed

        futures = {
            self._client.submit(
                replay,
                str(recording.path),
                qemu.digest,
                msgspec.json.encode(task),
                retries=RETRIES,
                pure=False,
            ): task
            for task in tasks
        }
        answers = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        async for future in answers:
            try:
                answer = msgspec.json.decode(await future, type=worker.Done | worker.Failure)
            except Exception as error:  # whatever the worker's Python raised
                raise EnvironmentLacks(
                    f"The cluster could not replay {recording.name}: {error}",
                    "Look at the workers' logs: each needs this retrograde, QEMU and memory; "
                    "what is done stays.",
                ) from error
            if isinstance(answer, worker.Failure):
                raise answer.error()
            for interval in futures[future].run:
                done(interval)


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Cluster]:
    """Connect to the scheduler at `address`, as tcp://HOST:PORT.

    Raises UsageError for what is no address, EnvironmentLacks when nobody answers, no
    worker is there, or dask.distributed is not installed.
    """
    try:
        from distributed import Client
    except ImportError as error:
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


def replay(path: str, digest: str, task: bytes) -> bytes:
    """Replay a run, on a worker of the cluster; returns `Done` or `Failure`.

    `digest` is that of the QEMU that has to be used. Raises ChildProcessError when our
    process was killed, so that the run is tried again.
    """
    try:
        recording = Recording.open(path)
        qemu = Qemu.find(recording.manifest.machine.target)
        if qemu.digest != digest:
            raise QemuMismatch(
                f"{qemu.path} is another build of QEMU than the others use.",
                "Install the same QEMU on all machines of the cluster.",
            )
        return _replayed(worker.arguments(recording, qemu), task)
    except RetrogradeError as error:
        failure = worker.Failure.of(error)
        named = msgspec.structs.replace(
            failure, what=f"The worker on {platform.node()}: {failure.what}"
        )
        return msgspec.json.encode(named)


def _replayed(command: list[str], task: bytes) -> bytes:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(task + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            answer = msgspec.json.decode(line, type=worker.Done | worker.Failure)
            if isinstance(answer, worker.Failure) or answer.interval is None:
                return line
    raise ChildProcessError(f"The process that replays was killed: {process.returncode}.")
