"""Which of a machine's steps are on one stack, when others are switched to meanwhile.

A stack is left by an instruction that loads the stack pointer from elsewhere, or where an
interrupt or exception finds another. Who does that has saved the pointer, and it is the same
again when the stack is come back to. Task stacks of a kernel lie side by side, so that their
distance says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

FRAME = 64
"""Bytes by which the stack pointer may move without a question: what an interrupt pushes
(40, aligned to 16, and an error code), or small frames."""


class Pointer(NamedTuple):
    """A stack pointer, and the address space it is of, 0 where all share it."""

    sp: int
    space: int = 0

    def is_far_from(self, other: Pointer) -> bool:
        """Whether only a switch of stacks or a large frame lies between them."""
        return abs(self.sp - other.sp) > FRAME


class OneStack:
    """Follows the stack pointer step by step, in either direction."""

    def __init__(self) -> None:
        self._left: Pointer | None = None

    @property
    def is_left(self) -> bool:
        """Whether the machine is on another stack."""
        return self._left is not None

    def passes(self, here: Pointer, there: Pointer, *, switches: bool) -> bool:
        """Learn of a step from `here` to `there`; return whether all of it was on this stack."""
        if self._left is not None:
            if there == self._left:
                self._left = None
            return False
        if switches and there.is_far_from(here):
            self._left = here
            return False
        return True
