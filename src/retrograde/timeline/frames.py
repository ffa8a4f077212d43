"""Out of the current function on x86, in either direction, by the stack pointer alone.

No symbols are needed. A call pushes one word and a return pops one, so while a
function runs the stack pointer stays at or below where it was on entry. The return that
leaves is the first one to above all the stack pointers seen since; the call that entered
is the last one down to at or above all of them.
Interrupts, calls made meanwhile and system calls never are; what other tasks do, whose stacks
were switched to, is passed over (stacks). What takes an interrupt or exception enters its
handler, as a call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retrograde.isa.isa import LONG_MODE
from retrograde.timeline.paging import LINUX_SPACE
from retrograde.timeline.stacks import OneStack, Pointer

if TYPE_CHECKING:
    from retrograde.timeline.timeline import Timeline

_PREFIXES: Final = frozenset(bytes.fromhex("66 67 f0 f2 f3 26 2e 36 3e 64 65")) | {
    *range(0x40, 0x50)
}
_RETURNS: Final = frozenset(bytes.fromhex("c2 c3 ca cb cf"))
_RESUMES: Final = 0xCF
_CALLS: Final = frozenset(bytes.fromhex("9a cc cd ce e8"))
_POP_SP: Final = 0x5C
_EXCHANGE: Final = 0x87
_STORE: Final = 0x89
_LOAD: Final = 0x8B
"""Opcodes (Intel SDM volume 2, appendix A). ff is a call where bits 3 to 5 of the byte after
it are 2 or 3."""

_SP, _BP = 4, 5
"""Numbers of the stack and the frame pointer in the byte after an opcode."""

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
        at, opcode, _rex = await self._opcode()
        if opcode == 0xFF:
            return (await self._timeline.read(at + 1, 1))[0] >> 3 & 7 in (2, 3)
        return opcode in _CALLS

    async def returned(self) -> bool:
        """Whether the instruction before the cursor was a return."""
        return await self._before() in _RETURNS

    async def resumed(self) -> bool:
        """Whether the instruction before the cursor was a return from an interrupt."""
        return await self._before() == _RESUMES

    async def _before(self) -> int:
        await self._timeline.step_back()
        _at, opcode, _rex = await self._opcode()
        await self._timeline.step()
        return opcode

    async def switched(self) -> bool:
        """Whether the instruction before the cursor, or an interrupt since, may switch stacks."""
        if self._timeline.facts.is_delivery(self._timeline.position):
            return True
        await self._timeline.step_back()
        switches = await self.switches()
        await self._timeline.step()
        return switches

    async def switches(self) -> bool:
        """Whether the instruction at the cursor loads the stack pointer from elsewhere.

        From the frame pointer a function gets its own stack back.
        """
        at, opcode, rex = await self._opcode()
        if opcode in (_POP_SP, _RESUMES):
            return True
        if opcode not in (_LOAD, _STORE, _EXCHANGE):
            return False
        byte = (await self._timeline.read(at + 1, 1))[0]
        register, other = byte >> 3 & 7 | (rex & 4) << 1, byte & 7 | (rex & 1) << 3
        is_other = byte >> 6 == 3  # else it is memory
        loads = {
            _LOAD: register == _SP and not (is_other and other == _BP),
            _STORE: is_other and other == _SP and register != _BP,
            _EXCHANGE: register == _SP or (is_other and other == _SP),
        }
        return loads[opcode]

    async def _opcode(self) -> tuple[int, int, int]:
        """Return where the next instruction's opcode is, behind prefixes, the opcode, and REX."""
        at, rex = await self._timeline.pc(), 0
        while (opcode := (await self._timeline.read(at, 1))[0]) in _PREFIXES:
            rex = opcode if opcode >> 4 == 4 else 0
            at += 1
        return at, opcode, rex

    async def look(self) -> Pointer:
        """Return the stack pointer at the cursor."""
        registers = await self._timeline.registers()
        self.word = 8 if registers["efer"] & LONG_MODE else 4
        sp = registers[self._isa.sp]
        # Processes may have stacks at the same address, which kernels have not.
        is_of_process = not sp >> (8 * self.word - 1)
        return Pointer(sp, registers["cr3"] & LINUX_SPACE if is_of_process else 0)

    def see(self, pointer: Pointer) -> None:
        """Learn of a stack pointer of the function or what it called."""
        if self.highest < 0 or self.is_near(pointer):
            self.highest = max(self.highest, pointer.sp)

    def is_near(self, pointer: Pointer) -> bool:
        """Whether it can be in the stack the function began on."""
        return abs(pointer.sp - self.highest) < NEAR


async def finish(timeline: Timeline) -> int | None:
    """Run forward until the function at the cursor has returned; return the position.

    Returns None, with the cursor where it was, when it does not within FARTHEST positions.
    """
    frames, stack, origin = _Frames(timeline), OneStack(), timeline.position
    here = await frames.look()
    frames.see(here)
    while timeline.position < min(timeline.end, origin + FARTHEST):
        await timeline.step()
        there = await frames.look()
        is_far = not stack.is_left and there.is_far_from(here)
        # A handler returns to any stack.
        if is_far and here.sp >= frames.highest and await frames.resumed():
            return timeline.position
        if stack.passes(here, there, switches=is_far and await frames.switched()):
            is_above = max(here.sp, frames.highest) < there.sp and frames.is_near(there)
            if is_above and await frames.returned():
                return timeline.position
            frames.see(there)
        here = there
    await timeline.seek(origin)
    return None


async def finish_back(timeline: Timeline) -> int | None:
    """Run backward to the call of the function at the cursor; return the position.

    For a handler that is the instruction its interrupt or exception came after. Returns
    None, with the cursor where it was, when there is none within FARTHEST positions.
    """
    frames, stack, origin = _Frames(timeline), OneStack(), timeline.position
    here = await frames.look()
    frames.see(here)
    while timeline.position > max(0, origin - FARTHEST):
        is_taken = timeline.facts.is_delivery(timeline.position)
        await timeline.step_back()
        before = await frames.look()
        # A handler pops the error code, one word, before it returns.
        if is_taken and not stack.is_left and here.sp + frames.word >= frames.highest:
            return timeline.position
        is_far = not stack.is_left and before.is_far_from(here)
        if stack.passes(here, before, switches=is_far and (is_taken or await frames.switches())):
            is_down = frames.is_near(before) and 0 < before.sp - here.sp <= 8
            if here.sp >= frames.highest and is_down and await frames.calls():
                return timeline.position
            frames.see(before)
        here = before
    await timeline.seek(origin)
    return None
