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

from retrograde.recording.rrevents import SHUTDOWN_KINDS, Kind
from retrograde.recording.rrlog import RrLog

_INSTRUCTION_BYTES: Final = 5


def put_behind_its_instructions(log: RrLog) -> bool:
    """Exchange the first shutdown and an INSTRUCTION event that follows it, in the file.

    Returns whether there was something to exchange. Raises as RrLog.batches does, OSError
    where the file cannot be written.
    """
    shutdown = next(log.events(SHUTDOWN_KINDS), None)
    if shutdown is None:
        return False
    fd = os.open(log.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        events = os.pread(fd, 1 + _INSTRUCTION_BYTES, shutdown.offset)
        if len(events) <= _INSTRUCTION_BYTES or events[1] != Kind.INSTRUCTION:
            return False
        os.pwrite(fd, events[1:] + events[:1], shutdown.offset)
    finally:
        os.close(fd)
    return True
