"""QEMU's ``key=value,key=value`` option text, read and written.

The grammar (QEMU util/qemu-option.c): properties are separated by single commas, a
doubled comma inside a value stands for one comma, the first property may leave out
its key when the option has an implied one (``-device VGA,…`` is ``driver=VGA``), and
a bare later key is a switch (``readonly`` is ``readonly=on``).
"""

from __future__ import annotations

from collections.abc import Iterable

Pairs = tuple[tuple[str, str], ...]


def split(text: str, implied: str = "") -> Pairs:
    """Return the (key, value) pairs of `text` in order; keys may repeat.

    `implied` is the key of a first value written without one.
    """
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        key_end = _end_of_key(text, at)
        has_value = key_end < len(text) and text[key_end] == "="
        if has_value:
            value, after = _read_value(text, key_end + 1)
            pairs.append((text[at:key_end], value))
        elif at == 0 and implied:
            value, after = _read_value(text, 0)
            pairs.append((implied, value))
        else:
            pairs.append((text[at:key_end], "on"))
            after = key_end + 1
        at = after
    return tuple(pairs)


def join(pairs: Iterable[tuple[str, str]]) -> str:
    """Return option text that `split` reads back as `pairs`."""
    return ",".join(f"{key}={escape(value)}" for key, value in pairs)


def escape(value: str) -> str:
    """Double the commas of one value, so that QEMU does not end it there."""
    return value.replace(",", ",,")


def _end_of_key(text: str, at: int) -> int:
    while at < len(text) and text[at] not in "=,":
        at += 1
    return at


def _read_value(text: str, at: int) -> tuple[str, int]:
    """Return the value starting at `at` and the offset after its closing comma."""
    value: list[str] = []
    while at < len(text):
        if text[at] == ",":
            if text[at + 1 : at + 2] != ",":
                return "".join(value), at + 1
            at += 1
        value.append(text[at])
        at += 1
    return "".join(value), at
