"""Out of the current function, in either direction, by the stack pointer alone.

No symbols are needed. On x86 a call is a jump that pushes one word and a return is a
jump that pops one, so while a function runs the stack pointer stays at or below where it
was on entry. The return that leaves is the first jump to above all the stack pointers
seen since; the call that entered is the last jump down to at or above all of them.
Interrupts, calls made meanwhile and system calls (another stack, far away) never are.
What takes an interrupt or exception enters its handler, as a call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retrograde.errors import UsageError

if TYPE_CHECKING:
    from retrograde.timeline.timeline import Timeline

LONGEST: Final = 15
"""Bytes of the longest x86 instruction: what moves pc no further forward is no jump."""

LONG_MODE: Final = 1 << 10
"""EFER.LMA: Intel SDM volume 3, 2.2.1."""

FARTHEST: Final = 1 << 19
"""Positions looked at before giving up: some seconds' worth."""

NEAR: Final = 1 << 24
"""Bytes between stack pointers of one stack."""

TARGETS: Final = ("x86_64", "i386")


class _Frames:
    """The pc and stack pointer at the cursor, and the highest of its stack seen so far."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._isa = timeline.view.isa
        if self._isa.target not in TARGETS:
            raise UsageError(
                f"Leaving a function by the stack pointer is not known for {self._isa.target}.",
                "Run to its return address instead.",
            )
        self.highest = -1
        self.word = 8

    async def look(self) -> tuple[int, int]:
        """Return pc and stack pointer at the cursor."""
        registers = await self._timeline.registers()
        self.word = 8 if registers["efer"] & LONG_MODE else 4
        return registers[self._isa.pc], registers[self._isa.sp]

    def see(self, sp: int) -> None:
        """Learn of a stack pointer of the function or what it called."""
        if self.highest < 0 or self.is_near(sp):
            self.highest = max(self.highest, sp)

    def is_near(self, sp: int) -> bool:
        """Whether `sp` is in the stack the function began on."""
        return abs(sp - self.highest) < NEAR


async def finish(timeline: Timeline) -> int | None:
    """Run forward until the function at the cursor has returned; return the position.

    Returns None, with the cursor where it was, when it does not within FARTHEST positions.
    """
    frames, origin = _Frames(timeline), timeline.position
    pc, sp = await frames.look()
    frames.see(sp)
    while timeline.position < min(timeline.end, origin + FARTHEST):
        await timeline.step()
        after_pc, after_sp = await frames.look()
        has_left = frames.highest < after_sp and frames.is_near(after_sp)
        if _is_jump(pc, after_pc) and sp < after_sp and has_left:
            return timeline.position
        frames.see(after_sp)
        pc, sp = after_pc, after_sp
    await timeline.seek(origin)
    return None


async def finish_back(timeline: Timeline) -> int | None:
    """Run backward to the call of the function at the cursor; return the position.

    For a handler that is the instruction its interrupt or exception came after. Returns
    None, with the cursor where it was, when there is none within FARTHEST positions.
    """
    frames, origin = _Frames(timeline), timeline.position
    pc, sp = await frames.look()
    frames.see(sp)
    while timeline.position > max(0, origin - FARTHEST):
        is_handler = timeline.facts.is_delivery(timeline.position)
        await timeline.step_back()
        before_pc, before_sp = await frames.look()
        called = sp >= frames.highest and frames.is_near(before_sp) and 0 < before_sp - sp <= 8
        # A handler pops the error code, one word, before it returns.
        taken = is_handler and sp + frames.word >= frames.highest
        if _is_jump(before_pc, pc) and (called or taken):
            return timeline.position
        frames.see(before_sp)
        pc, sp = before_pc, before_sp
    await timeline.seek(origin)
    return None


def _is_jump(before: int, after: int) -> bool:
    return not 0 < after - before <= LONGEST
