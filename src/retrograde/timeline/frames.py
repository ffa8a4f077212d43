"""Out of the current function on x86, in either direction, by the stack pointer alone.

No symbols are needed. A call pushes one word and a return pops one, so while a
function runs the stack pointer stays at or below where it was on entry. The return that
leaves is the first one to above all the stack pointers seen since; the call that entered
is the last one down to at or above all of them.
Interrupts, calls made meanwhile and system calls (another stack, far away) never are.
What takes an interrupt or exception enters its handler, as a call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retrograde.machine.isa import LONG_MODE

if TYPE_CHECKING:
    from retrograde.timeline.timeline import Timeline

_PREFIXES: Final = frozenset(bytes.fromhex("66 67 f0 f2 f3 26 2e 36 3e 64 65")) | {
    *range(0x40, 0x50)
}
_RETURNS: Final = frozenset(bytes.fromhex("c2 c3 ca cb cf"))
_CALLS: Final = frozenset(bytes.fromhex("9a cc cd ce e8"))
"""Opcodes (Intel SDM volume 2, appendix A). ff is a call where bits 3 to 5 of the byte after
it are 2 or 3."""

FARTHEST: Final = 1 << 19
"""Positions looked at before giving up: some seconds' worth."""

NEAR: Final = 1 << 24
"""Bytes between stack pointers of one stack."""


class _Frames:
    """The stack pointer at the cursor, and the highest of its stack seen so far."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._isa = timeline.view.isa
        self.highest = -1
        self.word = 8

    async def calls(self) -> bool:
        """Whether the instruction at the cursor is a call."""
        at, opcode = await self._opcode()
        if opcode == 0xFF:
            return (await self._timeline.read(at + 1, 1))[0] >> 3 & 7 in (2, 3)
        return opcode in _CALLS

    async def returned(self) -> bool:
        """Whether the instruction before the cursor was a return."""
        await self._timeline.step_back()
        _at, opcode = await self._opcode()
        await self._timeline.step()
        return opcode in _RETURNS

    async def _opcode(self) -> tuple[int, int]:
        """Return the address of the next instruction's opcode, behind prefixes, and the opcode."""
        at = await self._timeline.pc()
        while (opcode := (await self._timeline.read(at, 1))[0]) in _PREFIXES:
            at += 1
        return at, opcode

    async def look(self) -> int:
        """Return the stack pointer at the cursor."""
        registers = await self._timeline.registers()
        self.word = 8 if registers["efer"] & LONG_MODE else 4
        return registers[self._isa.sp]

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
    sp = await frames.look()
    frames.see(sp)
    while timeline.position < min(timeline.end, origin + FARTHEST):
        await timeline.step()
        after = await frames.look()
        if max(sp, frames.highest) < after and frames.is_near(after) and await frames.returned():
            return timeline.position
        frames.see(after)
        sp = after
    await timeline.seek(origin)
    return None


async def finish_back(timeline: Timeline) -> int | None:
    """Run backward to the call of the function at the cursor; return the position.

    For a handler that is the instruction its interrupt or exception came after. Returns
    None, with the cursor where it was, when there is none within FARTHEST positions.
    """
    frames, origin = _Frames(timeline), timeline.position
    sp = await frames.look()
    frames.see(sp)
    while timeline.position > max(0, origin - FARTHEST):
        is_handler = timeline.facts.is_delivery(timeline.position)
        await timeline.step_back()
        before = await frames.look()
        # A handler pops the error code, one word, before it returns.
        if is_handler and sp + frames.word >= frames.highest:
            return timeline.position
        entered = sp >= frames.highest and frames.is_near(before) and 0 < before - sp <= 8
        if entered and await frames.calls():
            return timeline.position
        frames.see(before)
        sp = before
    await timeline.seek(origin)
    return None
