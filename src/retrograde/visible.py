"""Text of anybody's for a reader at a terminal: nothing in it commands, reorders or hides.

The guest, a manifest, a cache and QEMU's messages may hold escape sequences, marks that turn
the direction of writing, and characters without width by the thousand. What people read goes
through `visible`, wherever it is from; data for programs stays as it is.
"""

from __future__ import annotations

import re
import unicodedata

MARKS_IN_A_ROW = 4
"""Combining marks that may follow one another: writing has up to three on a letter."""

# Invisible although they count as letters or marks (Unicode, Default_Ignorable_Code_Point),
# and an empty Braille cell.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: str, keep: str = "") -> str:
    """Return `text` with what a terminal does not show, or obeys, as Python's escapes.

    `keep` are characters to leave, a newline perhaps.
    """
    if text.isascii() and text.isprintable():
        return text
    marks, parts = 0, []
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        shown = char in keep or (_is_shown(char) and marks <= MARKS_IN_A_ROW)
        parts.append(char if shown else _escaped(char))
    return "".join(parts)


def visible_lines(text: str) -> str:
    """Return `text`, which may have several lines and tabs, as `visible` does."""
    return visible(text, "\n\t")


def visible_json(text: str) -> str:
    """Return a JSON document that a terminal can bear, and that says the same."""
    if text.isascii() and text.isprintable():
        return text
    # Outside of strings JSON has nothing but ASCII and white space.
    return "".join(
        c if c in "\n\t" or (_is_shown(c) and not unicodedata.combining(c)) else _json_escape(c)
        for c in text
    )


def _is_shown(char: str) -> bool:
    return char.isprintable() and not _BLANK.match(char)


def _escaped(char: str) -> str:
    """Return the escape of one character, as Python writes it."""
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    """Return the escape of one character, as JSON writes it: by halves where it is wide."""
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
