"""Whether a stopped QEMU is at rest: no disk request, no callback left to be done.

A request that the guest hands in passes two stages. First the host reads or writes the image
(a thread of QEMU's pool does, block/file-posix.c), and read data goes straight to guest RAM,
whether the machine runs or not. Then the request waits in the queue of replay events for its
turn in the log (block/blkreplay.c, replay/replay-events.c), and only its turn tells the
device. A snapshot holds neither stage. So `savevm` is refused while the queue holds anything,
and the same moment must not be used to load another state: `load_snapshot` runs what is
queued (replay_flush_events in migration/savevm.c), into the RAM put in place for the load;
and what the first stage finishes later is taken for a request of the new state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from retrograde.errors import QemuRefused, QemuTimeout
from retrograde.machine.monitor import Monitor

REST_SECONDS = 30.0
"""How long the host may take to read or write what a guest asked for at once."""

PAUSE_SECONDS = 0.0005
"""Between two looks at the threads, where the first did not find them at rest."""

NO_NODE = "retrograde-no-such-node"
"""A block node that no machine has: our node names do not end so."""

_JOB = "retrograde-quiet"

Threads = Mapping[str, tuple[bytes, bytes]]
"""Of each thread its state, one letter, and how often it was switched, as text."""


class RequestsInFlight(QemuRefused):
    """The machine stands where disk requests are in flight: nothing is saved or loaded there."""


async def rest(pid: int) -> None:
    """Wait until all threads of the stopped QEMU `pid` sleep: the first stage is over.

    Two looks in a row must find every thread asleep, and none that ran in between. A thread
    that waits for a disk does not sleep in this sense (state D in /proc, proc(5)).
    """
    try:
        async with asyncio.timeout(REST_SECONDS):
            before: Threads = {}
            while (now := _threads(pid)) != before or not _all_asleep(now):
                before = now
                await asyncio.sleep(PAUSE_SECONDS)
    except TimeoutError:
        raise QemuTimeout(
            f"QEMU was still busy {REST_SECONDS:g} s after the machine was stopped.",
            "Look whether the disk that holds the guest's images answers.",
        ) from None


async def is_queue_empty(monitor: Monitor) -> bool:
    """Whether no replay event waits for its turn; the machine must be stopped and at rest.

    A snapshot is asked for that cannot be made, because it is to be of a node that does not
    exist. QEMU looks at the queue before it looks for the node (save_snapshot in
    migration/savevm.c), and nothing is touched either way.
    """
    what = {"job-id": _JOB, "tag": _JOB, "vmstate": NO_NODE, "devices": [NO_NODE]}
    await monitor.execute("snapshot-save", what)
    while True:
        jobs = await monitor.execute("query-jobs")
        (job,) = (job for job in jobs if job["id"] == _JOB)
        if job["status"] == "concluded":
            break
    await monitor.execute("job-dismiss", {"id": _JOB})
    return NO_NODE in job["error"]


def _threads(pid: int) -> Threads:
    threads = {}
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            status = (thread / "status").read_bytes()
        except OSError:
            continue  # it has ended
        state = status[status.index(b"State:") + 6 :].split(maxsplit=1)[0]
        threads[thread.name] = state, status[status.index(b"voluntary_ctxt_switches:") :]
    return threads


def _all_asleep(threads: Threads) -> bool:
    return all(state == b"S" for state, _ in threads.values())
