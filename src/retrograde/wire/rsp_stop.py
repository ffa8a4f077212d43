"""Stop replies of the GDB remote protocol.

GDB manual, appendix "GDB Remote Serial Protocol", section "Stop Reply Packets".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.wire.rsp import MalformedPacket

SIGINT: Final = 2
SIGQUIT: Final = 3
SIGTRAP: Final = 5


class StopReason(enum.Enum):
    """Why a target stopped, where the reply says more than the signal."""

    WATCH = "watch"
    READ_WATCH = "rwatch"
    ACCESS_WATCH = "awatch"
    SOFTWARE_BREAK = "swbreak"
    HARDWARE_BREAK = "hwbreak"
    REPLAY_LOG = "replaylog"


_WATCHES: Final = frozenset((StopReason.WATCH, StopReason.READ_WATCH, StopReason.ACCESS_WATCH))
_REASONS: Final = {reason.value: reason for reason in StopReason}


@dataclass(frozen=True, slots=True)
class StopReply:
    """One stop reply.

    `signal` is gdb's number (for "exited" the exit status), `address` the data address of
    a watchpoint, `log_end` which end of the replay log was reached, `thread` the thread as
    the stub wrote it.
    """

    signal: int
    kind: Literal["signal", "exited", "killed"] = "signal"
    reason: StopReason | None = None
    address: int | None = None
    log_end: Literal["begin", "end"] | None = None
    thread: str = ""

    @property
    def is_plain_trap(self) -> bool:
        """True for a bare SIGTRAP: what ends a single step that met nothing else."""
        return self.kind == "signal" and self.signal == SIGTRAP and self.reason is None


def is_stop(payload: bytes) -> bool:
    """Tell whether a reply is a stop reply, as against an answer or an error."""
    return payload[:1] in (b"T", b"S", b"W", b"X")


def parse_stop(payload: bytes) -> StopReply:
    """Read a stop reply. Raises MalformedPacket."""
    kind, status, rest = payload[:1], payload[1:3], payload[3:]
    try:
        signal = bytes.fromhex(status.decode("ascii"))[0]
    except (ValueError, IndexError):
        raise MalformedPacket("stop reply without a signal") from None
    if kind == b"S":
        return StopReply(signal)
    if kind == b"W":
        return StopReply(signal, kind="exited")
    if kind == b"X":
        return StopReply(signal, kind="killed")
    if kind == b"T":
        return _parse_details(signal, rest)
    raise MalformedPacket("not a stop reply")


def _parse_details(signal: int, rest: bytes) -> StopReply:
    reason = address = log_end = None
    thread = ""
    for pair in rest.decode("latin-1").split(";"):
        key, _, value = pair.partition(":")
        if key == "thread":
            thread = value
        elif key in _REASONS:
            reason = _REASONS[key]
            if reason in _WATCHES:
                address = _parse_address(value)
            elif reason is StopReason.REPLAY_LOG:
                log_end = _parse_log_end(value)
    return StopReply(signal, "signal", reason, address, log_end, thread)


def _parse_address(digits: str) -> int:
    # int() takes signs, spaces, underscores and non-ASCII digits, the protocol does not.
    if not digits or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise MalformedPacket("watchpoint without an address")
    return int(digits, 16)


def _parse_log_end(value: str) -> Literal["begin", "end"]:
    if value == "begin":
        return "begin"
    if value == "end":
        return "end"
    raise MalformedPacket("replaylog is neither begin nor end")
