"""Where the guest's own shutdown stands in an rr log.

QEMU before 10.2 writes the event when the guest asks for the shutdown, and only afterwards that
instructions ran since the last event (replay_shutdown_request in QEMU's replay/replay.c). A
replay of that log ends before these instructions, of which the last is the one that asked.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import RrLog

_BY_GUEST: Final = {kind for kind in Kind if kind.name.startswith("SHUTDOWN_GUEST_")}
_SHUTDOWNS: Final = {kind for kind in Kind if kind.name.startswith("SHUTDOWN_")}
_INSTRUCTION_BYTES: Final = 5


def put_behind_its_instructions(log: RrLog) -> bool:
    """Exchange the guest's shutdown and an INSTRUCTION event that follows it, in the file.

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
    """Return the offset of the first SHUTDOWN event if it is the guest's, in bytes."""
    wanted = np.zeros(256, np.bool_)
    wanted[list(_SHUTDOWNS)] = True
    for batch in log.batches():
        found = np.flatnonzero(wanted[batch.kind])
        if found.size:
            first = found[0]
            return int(batch.offset[first]) if int(batch.kind[first]) in _BY_GUEST else None
    return None
