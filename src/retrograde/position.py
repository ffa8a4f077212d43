"""Positions: how people write them, how we print them.

A position is QEMU's icount, the number of guest instructions retired since the start
of the recording (docs/devel/replay.rst in QEMU). Position *p* is the state before
instruction *p*; 0 <= p <= end.

Wherever a position is accepted these forms are: ``1234567``, ``1_234_567``, ``1.2G``
(K, M, G for 10^3, 10^6, 10^9), ``50%`` of the recording, ``start``, ``end``,
``end-1000`` and ``console:"Kernel panic"`` (where that text was first complete); other
ports that are kept have names of their own, as ``debugcon:PEI``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType

from retrograde.errors import PositionError

_SCALE = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_NUMBER = re.compile(r"(\d[\d_]*(?:\.\d+)?)([kKmMgG]?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_FROM_END = re.compile(r"end\s*-\s*(.+)")
_LONGEST = 100
"""Characters of a number, which has 19 digits at most, and of what a message quotes."""
_ON_PORT = re.compile(r"([a-z]+\d*):(.*)", re.DOTALL)
_FORMS = "Write a position as 1_234_567, 1.2G, 50%, start, end, end-1000 or console:TEXT."


def format_position(position: int) -> str:
    """Print a position the way all of retrograde does: ``1_234_567_890``."""
    return f"{position:_}"


FindText = Callable[[str], int | None]
"""Answers the position at which a text first stood complete on a port, or None."""


def parse_position(
    text: str,
    end: int,
    find_console: FindText,
    find_on: Mapping[str, FindText] = MappingProxyType({}),
) -> int:
    """Resolve a position expression within a recording of `end` instructions.

    `find_console` looks on the console, `find_on` on the other ports that are kept, by name.
    Raises PositionError when the text does not parse, is not there, or lies outside
    0..`end`.
    """
    position = _resolve(text.strip(), end, {"console": find_console, **find_on})
    return check_position(position, end)


def check_position(position: int, end: int) -> int:
    """Return `position` when it lies in 0..`end`, raise PositionError otherwise."""
    if not 0 <= position <= end:
        raise PositionError(
            f"Position {format_position(position)} lies outside the recording.",
            f"It goes from 0 to {format_position(end)}.",
        )
    return position


def _resolve(text: str, end: int, find_on: Mapping[str, FindText]) -> int:
    if text == "start":
        return 0
    if text == "end":
        return end
    if match := _ON_PORT.fullmatch(text):
        return _on_port(match[1], match[2], find_on)
    if match := _FROM_END.fullmatch(text):
        return end - _number(match[1].strip(), text)
    if len(text) <= _LONGEST and (match := _PERCENT.fullmatch(text)):
        return int(end * Decimal(match[1]) / 100)
    return _number(text, text)


def _on_port(port: str, quoted: str, find_on: Mapping[str, FindText]) -> int:
    if port not in find_on:
        raise PositionError(
            f"{port[:_LONGEST]!r} is not a port of this recording.",
            f"Those whose text is kept: {', '.join(find_on)}.",
        )
    is_quoted = len(quoted) >= 2 and quoted[0] == quoted[-1] and quoted[0] in "\"'"
    wanted = quoted[1:-1] if is_quoted else quoted
    if not wanted:
        raise PositionError(f"The {port} text to look for is empty.", _FORMS)
    position = find_on[port](wanted)
    if position is None:
        shown = "Read console.log in the recording"
        if port != "console":
            shown = f"The table `console` has its lines, WHERE port = '{port}',"
        raise PositionError(
            f"The {port} never shows {wanted[:_LONGEST]!r}.", f"{shown} to see what it does show."
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
