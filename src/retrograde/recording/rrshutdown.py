"""Where the shutdown stands in an rr log.

QEMU before 10.2 writes the event when somebody asks for the shutdown, and only afterwards that
instructions ran since the last event (replay_shutdown_request in QEMU's replay/replay.c). A
replay of that log ends before these instructions. Where the guest asked, the last of them is
the one with which it did. What ran after the request is in later events: QEMU writes one
before it lets the guest run again.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import RrLog

_SHUTDOWNS: Final = {kind for kind in Kind if kind.name.startswith("SHUTDOWN_")}
_INSTRUCTION_BYTES: Final = 5


def put_behind_its_instructions(log: RrLog) -> bool:
    """Exchange the first shutdown and an INSTRUCTION event that follows it, in the file.

    Returns whether there was something to exchange. Raises as RrLog.batches does, OSError
    where the file cannot be written.
    """
    at = _first_shutdown(log)
    if at is None:
        return False
    fd = os.open(log.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        events = os.pread(fd, 1 + _INSTRUCTION_BYTES, at)
        if len(events) <= _INSTRUCTION_BYTES or events[1] != Kind.INSTRUCTION:
            return False
        os.pwrite(fd, events[1:] + events[:1], at)
    finally:
        os.close(fd)
    return True


def _first_shutdown(log: RrLog) -> int | None:
    """Return the offset of the first SHUTDOWN event, in bytes; None where there is none."""
    wanted = np.zeros(256, np.bool_)
    wanted[list(_SHUTDOWNS)] = True
    for batch in log.batches():
        found = np.flatnonzero(wanted[batch.kind])
        if found.size:
            return int(batch.offset[found[0]])
    return None
