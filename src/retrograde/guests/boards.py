"""Boards worth trying, and what runs on each: our tiny guest, or QEMU's own firmware."""

from __future__ import annotations

from retrograde.guests.builtin import builtin_boards, builtin_guest
from retrograde.guests.guest import Guest

_FIRMWARE_SECONDS = 2.0
"""How long firmware that waits for somebody to type is recorded."""

_FIRMWARE: dict[tuple[str, str], tuple[str, ...]] = {
    ("ppc64", "powernv9"): ("-m", "1024"),
    ("ppc64", "powernv8"): ("-m", "1024"),
    ("ppc", "g3beige"): ("-m", "64", "-vga", "none"),
    ("ppc", "mac99"): ("-m", "64", "-vga", "none"),
    ("sparc", "SS-5"): ("-m", "32"),
    ("sparc64", "sun4u"): ("-m", "64"),
    ("alpha", "clipper"): ("-m", "64"),
    ("hppa", "B160L"): ("-m", "64"),
}
"""Boards whose firmware comes with QEMU and prints on the first serial port."""


def boards(target: str) -> tuple[str, ...]:
    """Return the boards of a target that have something to run; those with tiny first."""
    firmware = (board for of, board in _FIRMWARE if of == target)
    return tuple(dict.fromkeys((*builtin_boards(target), *firmware)))


def board_guest(target: str, board: str) -> Guest | None:
    """Return what to run on a board; None where there is nothing for it."""
    if board in builtin_boards(target):
        return builtin_guest("tiny", target, board)
    arguments = _FIRMWARE.get((target, board))
    if arguments is None:
        return None
    return Guest(
        name="firmware",
        target=target,
        description="the firmware QEMU comes with, until it waits for input",
        qemu_args=["-M", board, *arguments],
        files=(),
        start="",
        done="",
        seconds=_FIRMWARE_SECONDS,
    )
