"""Reading the packets of a client: pure, and never trusting what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.gdbserver.points import Kind, Point
from retrograde.timeline.timeline import Space
from retrograde.wire.agent import BadExpression, Expression

E_INTERRUPTED: Final = 4
E_INVALID: Final = 22
E_FAULT: Final = 14
E_READ_ONLY: Final = 30
"""Numbers of errno, which is what gdb's stubs send."""

MAX_EXPRESSION: Final = 4096
"""Bytes of one condition; gdb's own limit is a packet."""

_HEX: Final = re.compile(rb"[0-9a-fA-F]{1,16}")
_POINT: Final = re.compile(rb"([0-4]),([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})(;.*)?", re.S)
_CONDITION: Final = re.compile(rb"X([0-9a-fA-F]{1,4}),")
_ACTION: Final = re.compile(rb"([cstr]|[CS][0-9a-fA-F]{2})([0-9a-fA-F,]*)(?::(.*))?", re.S)


class Refusal(Exception):
    """A request that gets an error for an answer: an errno and a sentence."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number
        self.text = text


@dataclass(frozen=True, slots=True)
class Move:
    """A request that moves the machine; `start` and `stop` bound a range of pcs."""

    what: Literal["step", "run", "range", "step-back", "run-back", "stay"]
    start: int = 0
    stop: int = 0


def hexadecimal(digits: bytes) -> int:
    """Read up to 64 bits. Raises Refusal."""
    if not _HEX.fullmatch(digits):
        raise Refusal(E_INVALID, "That is not a hexadecimal number.")
    return int(digits, 16)


def pair(text: bytes) -> tuple[int, int]:
    """Read `hex,hex`. Raises Refusal."""
    first, _, second = text.partition(b",")
    return hexadecimal(first), hexadecimal(second)


def move_of(request: bytes) -> Move | None:
    """Return the movement a request asks for; None when it is none. Raises Refusal."""
    if request == b"bs":
        return Move("step-back")
    if request == b"bc":
        return Move("run-back")
    if request.startswith(b"vCont;"):
        return _continued(request.removeprefix(b"vCont;"))
    if re.fullmatch(rb"[cs].*|[CS][0-9a-fA-F]{2}(;.*)?", request, re.S):
        # An address to continue at would be a write to the pc.
        if (request[:1] in b"cs" and len(request) > 1) or b";" in request:
            raise Refusal(E_READ_ONLY, "The past is read-only: it goes on where it went on.")
        return Move("step" if request[:1] in b"sS" else "run")
    return None


def is_long(request: bytes) -> bool:
    """Whether a request may take long, so that a client may want to interrupt it."""
    try:
        return request.startswith((b"qRcmd,", b"qSearch:")) or move_of(request) is not None
    except Refusal:
        return False


def point_of(request: bytes, space: Space) -> Point:
    """Read what follows Z or z. Raises Refusal."""
    match = _POINT.fullmatch(request)
    if match is None:
        raise Refusal(E_INVALID, "That is not a break- or watchpoint.")
    digit = int(match[1])
    address, length = int(match[2], 16), int(match[3], 16)
    if digit >= 2 and (length < 1 or address + length > 1 << 64):
        raise Refusal(E_INVALID, "That is not a range of memory.")
    kind: Kind = (0, 1, 2, 3, 4)[digit]
    if digit < 2:
        return Point(kind, address, length, conditions=_conditions(match[4] or b""))
    return Point(kind, address, length, space)


def _continued(actions: bytes) -> Move:
    """Return what vCont wants of our only thread: the first action that concerns it."""
    for action in actions.split(b";"):
        match = _ACTION.fullmatch(action)
        if match is None:
            raise Refusal(E_INVALID, "That is not an action of vCont.")
        if not concerns_us(match[3]):
            continue
        letter, rest = match[1][:1], match[2]
        if letter == b"r":
            return Move("range", *pair(rest))
        if rest:
            raise Refusal(E_INVALID, "That is not an action of vCont.")
        if letter == b"t":
            return Move("stay")
        return Move("step" if letter in b"sS" else "run")
    return Move("stay")


def concerns_us(thread: bytes | None) -> bool:
    """Whether a thread id means our only thread, 1: it, any or all of them."""
    return thread in (None, b"", b"-1", b"0") or re.fullmatch(rb"0*1", thread or b"") is not None


def _conditions(text: bytes) -> tuple[Expression, ...]:
    """Read `;X<length>,<bytecode>...`; commands (`;cmds:`) may follow and are not for us.

    One we cannot read is replaced by none at all: gdb then evaluates it itself.
    """
    found = []
    at = 1
    while match := _CONDITION.match(text, at):
        size = int(match[1], 16)
        digits = text[match.end() : match.end() + 2 * size]
        at = match.end() + 2 * size
        try:
            code = bytes.fromhex(digits.decode("ascii"))
            if len(code) != size or size > MAX_EXPRESSION:
                raise Refusal(E_INVALID, "A condition is cut off or too long.")
            found.append(Expression(code))
        except BadExpression:
            return ()
        except ValueError:
            raise Refusal(E_INVALID, "A condition is not in hexadecimal digits.") from None
    return tuple(found)
