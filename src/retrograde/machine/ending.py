"""What QEMU's log and its last words tell about how a recording ended."""

from __future__ import annotations

from pathlib import Path

from retrograde.errors import RecordingError
from retrograde.recording.manifest import Ending
from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import RrLog

SIGNALLED = "terminating on signal"
"""QEMU says this when somebody else ended it (system/runstate.c)."""


def has_run(log: Path, version: int, status: int) -> bool:
    """Whether the guest ran, as far as `log` tells, or was ended just before it did.

    `version` is that of the logs of the QEMU that wrote it, `status` its exit status. Raises
    RecordingError when the log cannot be read.
    """
    try:
        events = RrLog.open(log, salvage=True, unfinished=version)
        if events.finalized and status == 0:
            return True
        return next(events.events({Kind.INSTRUCTION}), None) is not None
    except RecordingError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise  # nothing is known of it
        return False  # without a log, QEMU was ended before it made one


def exited(shutdown: str | None, status: int, stderr: str) -> bool:
    """Whether a guest that may have QEMU exit did, inside its last instruction.

    There is no machine behind that instruction, though the log counts it.
    """
    return shutdown == "host-signal" and status >= 0 and SIGNALLED not in stderr


def own_ending(shutdown: str | None, status: int, stderr: str, *, may_exit: bool = False) -> Ending:
    """Tell why QEMU ended by itself, from the log's first SHUTDOWN and what else it left.

    `may_exit` says that the guest can have QEMU exit, by semihosting: `exited` tells whether.
    """
    match shutdown:
        case "guest-shutdown" | "guest-reset" | "guest-panic":
            return shutdown
        case "host-signal" if status == 0 and SIGNALLED not in stderr and not may_exit:
            # Logged by whatever ends QEMU. A reset under -no-reboot logs nothing else
            # (qemu_system_reset_request in system/runstate.c).
            return "guest-reset"
        case _:
            return "quit"
