"""Positions: how people write them, how we print them.

A position is QEMU's icount, the number of guest instructions retired since the start
of the recording (docs/devel/replay.rst in QEMU). Position *p* is the state before
instruction *p*; 0 <= p <= end.

Wherever a position is accepted these forms are: ``1234567``, ``1_234_567``, ``1.2G``
(K, M, G for 10^3, 10^6, 10^9), ``50%`` of the recording, ``start``, ``end``,
``end-1000`` and ``console:"Kernel panic"`` (where that text was first complete).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from retrograde.errors import PositionError

_SCALE = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_NUMBER = re.compile(r"(\d[\d_]*(?:\.\d+)?)([kKmMgG]?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_FROM_END = re.compile(r"end\s*-\s*(.+)")
_LONGEST = 100
"""Characters of a number, which has 19 digits at most, and of what a message quotes."""
_FORMS = "Write a position as 1_234_567, 1.2G, 50%, start, end, end-1000 or console:TEXT."


def format_position(position: int) -> str:
    """Print a position the way all of retrograde does: ``1_234_567_890``."""
    return f"{position:_}"


def parse_position(text: str, end: int, find_console: Callable[[str], int | None]) -> int:
    """Resolve a position expression within a recording of `end` instructions.

    `find_console` answers the position at which a text first stood complete on the
    console, or None. Raises PositionError when the text does not parse, is not on the
    console, or lies outside 0..`end`.
    """
    position = _resolve(text.strip(), end, find_console)
    return check_position(position, end)


def check_position(position: int, end: int) -> int:
    """Return `position` when it lies in 0..`end`, raise PositionError otherwise."""
    if not 0 <= position <= end:
        raise PositionError(
            f"Position {format_position(position)} lies outside the recording.",
            f"It goes from 0 to {format_position(end)}.",
        )
    return position


def _resolve(text: str, end: int, find_console: Callable[[str], int | None]) -> int:
    if text == "start":
        return 0
    if text == "end":
        return end
    if text.startswith("console:"):
        return _on_console(text.removeprefix("console:"), find_console)
    if match := _FROM_END.fullmatch(text):
        return end - _number(match[1].strip(), text)
    if len(text) <= _LONGEST and (match := _PERCENT.fullmatch(text)):
        return int(end * Decimal(match[1]) / 100)
    return _number(text, text)


def _on_console(quoted: str, find_console: Callable[[str], int | None]) -> int:
    is_quoted = len(quoted) >= 2 and quoted[0] == quoted[-1] and quoted[0] in "\"'"
    wanted = quoted[1:-1] if is_quoted else quoted
    if not wanted:
        raise PositionError("The console text to look for is empty.", _FORMS)
    position = find_console(wanted)
    if position is None:
        raise PositionError(
            f"The console never shows {wanted[:_LONGEST]!r}.",
            "Read console.log in the recording to see what it does show.",
        )
    return position


def _number(text: str, whole: str) -> int:
    match = _NUMBER.fullmatch(text)
    if not match or match[1].endswith("_") or len(text) > _LONGEST:
        raise PositionError(f"{whole[:_LONGEST]!r} is not a position.", _FORMS)
    value = Decimal(match[1].replace("_", "")) * _SCALE[match[2].lower()]
    if value != int(value):
        raise PositionError(f"{whole[:_LONGEST]!r} is not a whole number of instructions.", _FORMS)
    return int(value)
