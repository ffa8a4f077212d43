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
from retrograde.machine.process import cpu_seconds_in

REST_SECONDS = 30.0
"""How long the host may take to read or write what a guest asked for at once."""

PAUSE_SECONDS = 0.0005
"""Between two looks at the threads, where the first did not find them at rest."""

SPIN_SECONDS = 0.1
"""Processor time of a main thread that does not sleep: some thousand rounds of its loop."""

NO_NODE = "retrograde-no-such-node"
"""A block node that no machine has: our node names do not end so."""

_JOB = "retrograde-quiet"

ASLEEP = b"S"

Thread = tuple[bytes, bytes]
"""The state of a thread, one letter, and how often it was switched, as text."""


class RequestsInFlight(QemuRefused):
    """The machine stands where disk requests are in flight: nothing is saved or loaded there."""


async def rest(pid: int) -> None:
    """Wait until the first stage is over for all requests of the stopped QEMU `pid`.

    That is so when no thread of the pool works, and the main thread, which takes over what
    the pool has done, sleeps since: asleep it waits for descriptors, of which none was ready.
    So it is looked at between two looks at all others, which must find them asleep and not
    have run in between. It may wake up by itself a thousand times a second. A thread that
    waits for a disk is not asleep in this sense (state D in /proc, proc(5)).

    Where a timer of the host's clock is due that may not run before the log says so, the main
    thread never sleeps: it looks again and again, at descriptors too (docs/quirks.md). Then it
    is enough that it did so for SPIN_SECONDS.
    """
    spin = _Spin(pid)
    try:
        async with asyncio.timeout(REST_SECONDS):
            # No event tells of it: /proc has to be looked at again.
            while not _is_at_rest(pid, spin):  # noqa: ASYNC110
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


class _Spin:
    """For how long the main thread has not slept, and no other thread has run."""

    def __init__(self, pid: int) -> None:
        self._place = Path(f"/proc/{pid}/task/{pid}")
        self._seen: object = None
        self._began = 0.0

    def is_long(self, others: Mapping[str, Thread], main: Thread) -> bool:
        """Whether that is SPIN_SECONDS of processor time by now."""
        ran = cpu_seconds_in(self._place)
        slept = main[1].partition(b"\n")[0]
        if (others, slept) != self._seen:
            self._seen, self._began = (others, slept), ran
        return ran - self._began > SPIN_SECONDS


def _is_at_rest(pid: int, spin: _Spin) -> bool:
    others = _others(pid)
    if any(state != ASLEEP for state, _ in others.values()):
        return False
    main = _thread(pid, str(pid))
    if main is not None and main[0] != ASLEEP and not spin.is_long(others, main):
        return False
    return _others(pid) == others


def _others(pid: int) -> Mapping[str, Thread]:
    """Return what is known of each thread but the main one."""
    names = [path.name for path in Path(f"/proc/{pid}/task").glob("*") if path.name != str(pid)]
    return {name: thread for name in names if (thread := _thread(pid, name))}


def _thread(pid: int, name: str) -> Thread | None:
    """Return what is known of a thread, None when it has ended."""
    try:
        status = Path(f"/proc/{pid}/task/{name}/status").read_bytes()
    except OSError:
        return None
    state = status[status.index(b"State:") + 6 :].split(maxsplit=1)[0]
    return state, status[status.index(b"voluntary_ctxt_switches:") :]
