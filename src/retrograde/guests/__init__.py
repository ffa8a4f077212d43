"""Guests to record: the reference guest (a Debian kernel) and the built-in tiny ones.

The built-in guests need nothing but QEMU; the reference guest needs a Debian host with
a package mirror in reach, and raises EnvironmentLacks where there is none.
"""

from retrograde.guests.boards import board_guest, boards
from retrograde.guests.builtin import (
    builtin_boards,
    builtin_guest,
    builtin_names,
    builtin_targets,
)
from retrograde.guests.guest import Guest, Pattern
from retrograde.guests.reference import reference_guest

__all__ = (
    "Guest",
    "Pattern",
    "board_guest",
    "boards",
    "builtin_boards",
    "builtin_guest",
    "builtin_names",
    "builtin_targets",
    "reference_guest",
)
