"""Out of the current function where calls leave the return address in a register.

The stack pointer does not tell there, because a function need not touch its stack. So
calls and returns on the way are counted, and with them what takes an interrupt or
exception and what returns from it; on this function's stack only, because what switches
to another is called on this one and returns to it (stacks). No symbols are needed.

Sources: Arm ARM (DDI 0487) C6; RISC-V unprivileged ISA, JAL and JALR, and privileged ISA,
trap returns; Power ISA 3.1B books I and III.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from retrograde.errors import UsageError
from retrograde.timeline.frames import FARTHEST, NEAR
from retrograde.timeline.stacks import OneStack, Pointer

if TYPE_CHECKING:
    from retrograde.timeline.timeline import Timeline


class _Kind(Enum):
    NONE = auto()
    CALL = auto()
    RETURN = auto()
    RESUME = auto()
    """Returns from an interrupt or exception."""
    SWITCH = auto()
    """Loads the stack pointer, neither relative to itself nor from the frame pointer."""


_Opcodes = tuple[tuple[int, int, _Kind], ...]
"""Mask, value and kind of instruction words; the first that fits counts."""

_AARCH64: Final[_Opcodes] = (
    (0xFC000000, 0x94000000, _Kind.CALL),  # bl
    (0xFFFFFC1F, 0xD63F0000, _Kind.CALL),  # blr
    (0xFEFFF800, 0xD63F0800, _Kind.CALL),  # blraa, blrab, blraaz, blrabz
    (0xFFFFFC1F, 0xD65F0000, _Kind.RETURN),  # ret
    (0xFFFFFBFF, 0xD65F0BFF, _Kind.RETURN),  # retaa, retab
    (0xFFFFFFFF, 0xD69F03E0, _Kind.RESUME),  # eret
    (0xFFFFFBFF, 0xD69F0BFF, _Kind.RESUME),  # eretaa, eretab
    (0xFF8003FF, 0x910003FF, _Kind.NONE),  # add sp, sp, N
    (0xFF8003FF, 0x910003BF, _Kind.NONE),  # add sp, x29, N
    (0xFF80001F, 0x9100001F, _Kind.SWITCH),  # add sp, xN, N; mov sp, xN
)
_RISCV: Final[_Opcodes] = (
    (0x00000DFF, 0x000000EF, _Kind.CALL),  # jal ra, jal t0
    (0x00007DFF, 0x000000E7, _Kind.CALL),  # jalr ra, jalr t0
    (0xFFFDFFFF, 0x00008067, _Kind.RETURN),  # jr ra, jr t0
    (0xDFFFFFFF, 0x10200073, _Kind.RESUME),  # sret, mret
    (0x000FCFFF, 0x00010103, _Kind.NONE),  # lb to ld sp, N(sp)
    (0x00000FFF, 0x00000103, _Kind.SWITCH),  # lw, ld sp, N(xN)
    (0xFFFFFFFF, 0x00010113, _Kind.NONE),  # mv sp, sp
    (0xFFFFFFFF, 0x00040113, _Kind.NONE),  # mv sp, s0
    (0xFFF07FFF, 0x00000113, _Kind.SWITCH),  # mv sp, xN
    (0x00003FFF, 0x00001173, _Kind.SWITCH),  # csrrw sp, csr, xN
)
_RISCV_SHORT: Final[_Opcodes] = (
    (0xFFFF, 0x9002, _Kind.NONE),  # c.ebreak
    (0xF07F, 0x9002, _Kind.CALL),  # c.jalr
    (0xFDFF, 0x8082, _Kind.RETURN),  # c.jr ra, c.jr t0
    (0xFFFF, 0x8122, _Kind.NONE),  # c.mv sp, s0
    (0xFFFF, 0x8102, _Kind.NONE),  # c.jr sp
    (0xFF83, 0x8102, _Kind.SWITCH),  # c.mv sp, xN
)
_RISCV32_SHORT: Final[_Opcodes] = (*_RISCV_SHORT, (0xE003, 0x2001, _Kind.CALL))  # c.jal
_PPC: Final[_Opcodes] = (
    (0xFC000001, 0x48000001, _Kind.CALL),  # bl, bla
    (0xFC000001, 0x40000001, _Kind.CALL),  # bcl, bcla
    (0xFC0007FF, 0x4C000021, _Kind.CALL),  # bclrl
    (0xFC0007FF, 0x4C000421, _Kind.CALL),  # bcctrl
    (0xFC0007FF, 0x4C000461, _Kind.CALL),  # bctarl
    (0xFC0007FF, 0x4C000020, _Kind.RETURN),  # bclr
    (0xFC0007FE, 0x4C000024, _Kind.RESUME),  # rfid
    (0xFC0007FE, 0x4C0000A4, _Kind.RESUME),  # rfscv
    (0xFC0007FE, 0x4C000224, _Kind.RESUME),  # hrfid
    (0xFFFF0003, 0xE8210000, _Kind.NONE),  # ld r1, N(r1)
    (0xFFE00003, 0xE8200000, _Kind.SWITCH),  # ld r1, N(rN)
    (0xFFFFFFFF, 0x7FE1FB78, _Kind.NONE),  # mr r1, r31
    (0xFC1F07FF, 0x7C010378, _Kind.SWITCH),  # or r1, rN, rN: mr r1, rN
)
_NO_SHORT: Final[_Opcodes] = ()

_ROWS: Final = {
    "aarch64": (_AARCH64, _NO_SHORT),
    "riscv64": (_RISCV, _RISCV_SHORT),
    "riscv32": (_RISCV, _RISCV32_SHORT),
    "ppc64": (_PPC, _NO_SHORT),
}
"""Opcodes of four bytes and of two; RISC-V tells by the lowest two bits which it is."""


class _Place(NamedTuple):
    pc: int
    sp: int

    @property
    def pointer(self) -> Pointer:
        return Pointer(self.sp)


class _Step(NamedTuple):
    """What the instruction before a position did, and what was taken behind it."""

    kind: _Kind
    entered: bool
    """An interrupt or exception was taken, and its handler begins."""
    leaves_near: bool
    """Began on the stack in question."""
    arrives_near: bool
    """Ended on the stack in question."""

    @property
    def calls(self) -> bool:
        return self.kind is _Kind.CALL and self.leaves_near

    @property
    def returns(self) -> bool:
        return self.kind in (_Kind.RETURN, _Kind.RESUME) and self.arrives_near


_PLAIN: Final = _Step(_Kind.NONE, False, True, True)


class _Way:
    """Steps away from a position, told one by one."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._isa = timeline.view.isa
        if self._isa.target not in _ROWS:
            raise UsageError(
                f"Leaving a function is not known for {self._isa.target}.",
                "Run to its return address instead.",
            )
        self._wide, self._short = _ROWS[self._isa.target]
        self._sizes = (2, 4) if self._short else (4,)
        self._stack = 0
        self._here = _Place(0, 0)
        self._one_stack = OneStack()

    async def begin(self) -> None:
        """Take the stack in use at the cursor for the one in question."""
        self._here = await self._look()
        self._stack = self._here.sp

    async def forward(self) -> _Step:
        """Step, and tell what that did."""
        before = self._here
        await self._timeline.step()
        after = self._here = await self._look()
        kind = _Kind.NONE
        if not self._is_plain(before, after):
            await self._timeline.step_back()
            kind = await self._kind(before.pc)
            await self._timeline.step()
        if self._one_stack.passes(before.pointer, after.pointer, switches=kind is _Kind.SWITCH):
            return self._told(kind, before, after, self._timeline.position)
        return _PLAIN

    async def backward(self) -> _Step:
        """Step back, and tell what was undone."""
        after, at = self._here, self._timeline.position
        await self._timeline.step_back()
        before = self._here = await self._look()
        kind = _Kind.NONE
        if not self._is_plain(before, after):
            kind = await self._kind(before.pc)
        if self._one_stack.passes(after.pointer, before.pointer, switches=kind is _Kind.SWITCH):
            return self._told(kind, before, after, at)
        return _PLAIN

    def _is_plain(self, before: _Place, after: _Place) -> bool:
        """Whether the machine went on to the next instruction, on a stack near by."""
        return self._goes_on(before, after) and not after.pointer.is_far_from(before.pointer)

    def _goes_on(self, before: _Place, after: _Place) -> bool:
        """Whether the next instruction is the next in memory: no call or return did that.

        What QEMU itself answers (hypercalls, PSCI, wfi) is in the log like what a handler
        is entered for, and goes on.
        """
        return after.pc - before.pc in self._sizes

    def _told(self, kind: _Kind, before: _Place, after: _Place, at: int) -> _Step:
        if self._goes_on(before, after):
            return _PLAIN
        return _Step(
            kind,
            entered=self._timeline.facts.is_delivery(at),
            leaves_near=abs(before.sp - self._stack) < NEAR,
            arrives_near=abs(after.sp - self._stack) < NEAR,
        )

    async def _look(self) -> _Place:
        registers = await self._timeline.registers()
        return _Place(registers[self._isa.pc], registers[self._isa.sp])

    async def _kind(self, pc: int) -> _Kind:
        """Return what the next instruction, at `pc`, is."""
        if 2 in self._sizes:
            half = int.from_bytes(await self._timeline.read(pc, 2), "little")
            if half & 3 != 3:
                return _classified(half, self._short)
        order = self._isa.order_at(await self._timeline.registers())
        return _classified(int.from_bytes(await self._timeline.read(pc, 4), order), self._wide)


def _classified(word: int, opcodes: _Opcodes) -> _Kind:
    return next((kind for mask, value, kind in opcodes if word & mask == value), _Kind.NONE)


async def finish(timeline: Timeline) -> int | None:
    """Run forward until the function at the cursor has returned; return the position.

    Returns None, with the cursor where it was, when it does not within FARTHEST positions.
    """
    way, origin, depth = _Way(timeline), timeline.position, 0
    await way.begin()
    while timeline.position < min(timeline.end, origin + FARTHEST):
        step = await way.forward()
        # Our handler returns to any stack, those that interrupted us to ours.
        leaves = step.kind is _Kind.RESUME and step.leaves_near and not depth
        depth += step.calls - (step.returns or leaves) + (step.entered and step.leaves_near)
        if depth < 0:
            return timeline.position
    await timeline.seek(origin)
    return None


async def finish_back(timeline: Timeline) -> int | None:
    """Run backward to the call of the function at the cursor; return the position.

    For a handler that is the instruction its interrupt or exception came after. Returns
    None, with the cursor where it was, when there is none within FARTHEST positions.
    """
    way, origin, depth = _Way(timeline), timeline.position, 0
    await way.begin()
    while timeline.position > max(0, origin - FARTHEST):
        step = await way.backward()
        # Our handler may have been entered from any stack, those that interrupted us from ours.
        depth -= step.entered and (step.leaves_near or (step.arrives_near and not depth))
        if depth >= 0:
            depth += step.returns - step.calls
        if depth < 0:
            return timeline.position
    await timeline.seek(origin)
    return None
