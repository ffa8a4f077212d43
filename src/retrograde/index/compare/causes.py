"""What made two runs of a thread part: the difference followed back to where it came in.

From the jump that went another way back through the instructions that both ran, always along a
value that is not the same in both: the flags, what was compared, where that is from, and so on
to a clock, a system call, another thread, or what the program was started with. Values that are
addresses differ with where things were mapped, which is no difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from retrograde.errors import QemuRefused, UsageError
from retrograde.index.compare.codepages import CodePages
from retrograde.index.compare.lane import Cause, Common, Lane
from retrograde.index.compare.usercode import UserCode
from retrograde.index.questions.processes import Ran, Span, Thread
from retrograde.machine.gdb.targetdesc import RegisterValues
from retrograde.position import format_position
from retrograde.timeline.pages import PAGE
from retrograde.timeline.search import hit_of
from retrograde.timeline.timeline import Timeline

MOST: Final = 100
"""Values followed."""
_AT_ONCE: Final = 4096
"""Instructions looked through for the one that set a register; then twice as many."""
_WORD: Final = (1 << 64) - 1
_ARITHMETIC: Final = 0x8D5
"""Flags that instructions compute: CF, PF, AF, ZF, SF, OF (Intel SDM volume 1, 3.4.3)."""
_FLAGS: Final = "flags"
_EARLIER: Final = "an earlier difference, by "
_GENERAL: Final = frozenset(
    {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "eflags"}
    | {f"r{number}" for number in range(8, 16)}
)
_UNTOLD: Final = frozenset({"cmpxchg", "xadd"})
"""What sets the flags though Capstone does not say so."""
_TIMES: Final = frozenset({"rdtsc", "rdtscp"})
_INPUTS: Final = frozenset({"rdrand", "rdseed", "rdpmc", "cpuid", "xgetbv", "in", "rdpid"})
_CLOCKS: Final = {
    36: "getitimer",
    96: "gettimeofday",
    98: "getrusage",
    100: "times",
    159: "adjtimex",
    201: "time",
    224: "timer_gettime",
    228: "clock_gettime",
    287: "timerfd_gettime",
}
"""System calls that tell a time (arch/x86/entry/syscalls/syscall_64.tbl)."""
_VDSO: Final = 33
"""AT_SYSINFO_EHDR: where the kernel's own code for programs is (include/uapi/linux/auxvec.h)."""
_VDSO_BYTES: Final = 4 * PAGE
_START_BYTES: Final = 1 << 16
_LONG_CODE: Final = 0x33
"""Linux's selector of 64-bit code (arch/x86/include/asm/segment.h)."""


@dataclass(frozen=True)
class Side:
    """A recording, and what the process ran in it."""

    timeline: Timeline
    ran: Ran
    code: UserCode


class _Register(NamedTuple):
    """A register, or the flags, before an instruction that both ran."""

    at: int
    name: str


class _Memory(NamedTuple):
    """`size` bytes before an instruction that both ran, at an address in each."""

    at: int
    addresses: tuple[int, int]
    size: int


_Value: TypeAlias = _Register | _Memory


class Causes:
    """Finds causes in two processes whose code is where `pages` says."""

    def __init__(self, sides: tuple[Side, Side], pages: CodePages) -> None:
        self.sides = sides
        self.stack = sides[1].ran.program.sp - sides[0].ran.program.sp & _WORD
        self.pages = pages
        self.dataflow = sides[0].code.dataflow
        self._vdso: int | None = None

    async def of(self, lane: Lane, thread: Thread) -> Cause:
        """Return why the two runs of a thread do not go on alike after what both ran."""
        return await _Walk(self, lane.common, thread).cause()

    def is_same(self, ours: int, theirs: int) -> bool:
        """Whether two values are the same, or addresses of what may be the same."""
        moved = theirs - ours & _WORD
        if self.pages.is_moved(ours, theirs) or moved == self.stack:
            return True
        return moved % PAGE == 0 and min(ours, theirs) > 1 << 16

    async def registers(self, positions: tuple[int, int]) -> list[tuple[str, int, int]]:
        """Return the registers that differ other than by where things were mapped."""
        ours, theirs = await self.both(positions)
        return [
            (name, value, theirs[name])
            for name, value in ours.items()
            if name in _GENERAL and not self.is_same(value, theirs[name])
        ]

    async def both(self, positions: tuple[int, int]) -> tuple[RegisterValues, RegisterValues]:
        """Return the registers of each at a position."""
        found = []
        for side, position in zip(self.sides, positions, strict=True):
            await side.timeline.seek(position)
            found.append(await side.timeline.registers())
        return found[0], found[1]

    async def is_of_kernel(self, address: int) -> bool:
        """Whether code at an address of ours is the kernel's own for programs."""
        if self._vdso is None:
            self._vdso = await self._find_vdso()
        return bool(self._vdso) and 0 <= address - self._vdso < _VDSO_BYTES

    async def _find_vdso(self) -> int:
        """Return where it is, 0 where it is not, as the program was told at its start."""
        side = self.sides[0]
        await side.timeline.seek(side.ran.spans[0].start)
        sp = side.ran.program.sp
        count = min(_START_BYTES, (sp | 0xFFFF) + 1 - sp)
        words: list[int] = []
        for page in range(sp, sp + count, PAGE - sp % PAGE or PAGE):
            size = PAGE - page % PAGE
            try:
                data = await side.timeline.read(page, size)
            except QemuRefused:
                break
            words += np.frombuffer(data, np.uint64).tolist()
        return _auxiliary(words).get(_VDSO, 0)


class _Walk:
    """The way back from one parting; instructions are numbered as in `common`."""

    def __init__(self, causes: Causes, common: Common, thread: Thread) -> None:
        self._causes = causes
        self._common = common
        self._thread = thread
        self._registers: dict[int, tuple[RegisterValues, RegisterValues]] = {}

    async def cause(self) -> Cause:
        """Return where the difference came in."""
        at = len(self._common.addresses) - 1
        if at < 0:
            return Cause("unknown", "the programs themselves: their first instructions differ")
        insn = await self._instruction(at)
        if (await self._both(at))[0]["cs"] != _LONG_CODE or insn is None:
            return Cause("unknown", "code that is not followed")
        if not _leads_elsewhere(insn):
            return Cause("signal", "the kernel, which led one of them elsewhere: a signal")
        value = await self._differing(at)
        for _ in range(MOST):
            if value is None:
                return Cause("unknown", "something that could not be followed")
            found = await self._back(value)
            if isinstance(found, Cause):
                return found
            value = found
        return Cause("unknown", f"something more than {MOST} values back")

    async def _back(self, value: _Value) -> _Value | Cause | None:
        """Return what a value is from: another, or where it came in."""
        if isinstance(value, _Memory):
            return await self._stored(value)
        at = await self._setter(value)
        if earlier := await self._in_gap(value, -1 if at is None else at):
            return earlier
        if at is None:
            return Cause("unknown", f"{value.name}, which was set long before")
        name = (await self._instruction(at)).mnemonic
        if name in _TIMES:
            return Cause("clock", f"{name}, the processor's clock{self._where(at)}")
        if name in _INPUTS:
            return Cause("input", f"{name}{self._where(at)}")
        if name in ("syscall", "int"):
            return await self._called(at, "gave")
        return await self._differing(at)

    async def _in_gap(self, value: _Register, setter: int) -> Cause | None:
        """Return why a register differs if it began to where a difference was passed over."""
        for at, cause in self._gaps(setter, value.at):
            ours, theirs = await self._both(at - 1)
            if value.name == _FLAGS:
                is_same = not (ours["eflags"] ^ theirs["eflags"]) & _ARITHMETIC
            else:
                is_same = self._causes.is_same(ours[value.name], theirs[value.name])
            if is_same:
                return _again(cause)
        return None

    def _gaps(self, after: int, until: int) -> Iterator[tuple[int, Cause]]:
        """Yield differences passed over between two instructions, the newest first."""
        for number, cause in reversed(self._common.gaps):
            at = number - self._common.forgotten
            if max(after, 0) < at <= until:
                yield at, cause

    def _where(self, at: int) -> str:
        position = format_position(int(self._common.positions[0, at]))
        return f", at {position} by {int(self._common.addresses[at]):#x}"

    async def _called(self, at: int, did: str) -> Cause:
        """Return that the system call of an instruction is the cause."""
        number = (await self._both(at))[0]["rax"] & 0xFFFF_FFFF
        if number in _CLOCKS:
            return Cause("clock", f"what the system call {_CLOCKS[number]} {did}{self._where(at)}")
        return Cause("call", f"what system call {number} {did}{self._where(at)}")

    async def _setter(self, value: _Register) -> int | None:
        """Return the last instruction before a register's use that set it."""
        high, size = value.at, _AT_ONCE
        while high > 0:
            low, size = max(0, high - size), size * 2
            part = self._common.addresses[low:high]
            _, first, which = np.unique(part, return_index=True, return_inverse=True)
            sets = np.array([await self._sets(low + int(at), value.name) for at in first])
            hits = np.flatnonzero(sets[which])
            if len(hits):
                return low + int(hits[-1])
            high = low
        return None

    async def _sets(self, at: int, register: str) -> bool:
        insn = await self._instruction(at)
        if insn is None:
            return False
        if register == _FLAGS:
            told = any(insn.reg_name(one).endswith("flags") for one in insn.regs_access()[1])
            return told or insn.mnemonic.split()[-1] in _UNTOLD
        if insn.mnemonic in ("syscall", "int") and register == "rax":
            return True
        return any(one.register == register for one in self._causes.dataflow.written(insn))

    async def _differing(self, at: int) -> _Value | None:
        """Return what an instruction used that is not the same in both."""
        insn, (ours, theirs) = await self._instruction(at), await self._both(at)
        reads = [insn.reg_name(one) for one in insn.regs_access()[0]]
        reads_flags = any(name.endswith("flags") for name in reads)
        if reads_flags and (ours["eflags"] ^ theirs["eflags"]) & _ARITHMETIC:
            return _Register(at, _FLAGS)
        for name in dict.fromkeys(reads):
            register = self._causes.dataflow.slice_of(name).register
            values = [side.get(register) for side in (ours, theirs)]
            if register == "rip" or None in values:
                continue
            if not self._causes.is_same(*(value or 0 for value in values)):
                return _Register(at, register)
        return await self._loaded(at)

    async def _loaded(self, at: int) -> _Memory | None:
        """Return what an instruction loaded that is not the same in both."""
        loads = []
        for side, position in zip(self._causes.sides, self._positions(at), strict=True):
            trace = await side.timeline.trace(position, position + 1)
            loads.append([hit_of(one) for one in trace.accesses_at(position, stores=False)])
        for one, other in zip(*loads, strict=False):
            if not self._causes.is_same(one.value or 0, other.value or 0):
                return _Memory(at, (one.address or 0, other.address or 0), one.size or 1)
        return None

    async def _stored(self, value: _Memory) -> _Value | Cause | None:
        """Return what an instruction stored, or who else wrote: in ours, or else in theirs."""
        return await self._written(value, 0) or await self._written(value, 1)

    async def _written(self, value: _Memory, number: int) -> _Value | Cause | None:
        """Return what was stored in memory of one run, or by whom; None: the same in both."""
        timeline, own = self._causes.sides[number].timeline, self._common.positions[number]
        address = value.addresses[number]
        await timeline.seek(int(own[value.at]))
        try:
            write = await timeline.last_write(address, value.size)
        except UsageError:
            return None
        if write is None or write.pc is None:
            return Cause("unknown", f"memory at {address:#x} that no instruction wrote")
        at = int(np.searchsorted(own, write.position))
        if at < len(own) and own[at] == write.position:
            return await self._differing(at)
        for gap, cause in self._gaps(0, value.at):
            if gap == at and self._runs(write.position, number) == self._thread:
                return _again(cause)
        return await self._by_others(value, write.position, number)

    def _last_span(self, position: int, number: int) -> Span:
        """Return what the process ran last in user mode, or runs, at a position of one run."""
        spans = self._causes.sides[number].ran.spans
        return spans[max(0, bisect_right(spans, position, key=lambda span: span.start) - 1)]

    def _runs(self, position: int, number: int) -> Thread | None:
        """Return which thread runs in user mode at a position of one run; None: none does."""
        span = self._last_span(position, number)
        return span.thread if position in range(span.start, span.stop) else None

    async def _by_others(self, value: _Memory, position: int, number: int) -> Cause:
        """Return whose a store in one run is that is none of the thread's, or of long before."""
        ran, own = self._causes.sides[number].ran, self._common.positions[number]
        run = " in B" if number else ""
        when = (
            f"memory at {value.addresses[number]:#x}, written at {format_position(position)}{run}"
        )
        if position < ran.spans[0].start:
            return Cause("start", f"{when}, before it began: its arguments or environment")
        thread = self._runs(position, number)
        if thread == self._thread:
            return Cause("unknown", f"{when}, long before")
        if thread is not None:
            return Cause("thread", f"{when} by another thread")
        if await self._causes.is_of_kernel(int(self._common.addresses[value.at])):
            return Cause("clock", f"the time that the kernel keeps for programs: {when}")
        last = self._last_span(position, number)
        at = int(np.searchsorted(own, last.stop - 1))
        is_own = last.thread == self._thread and at < value.at and own[at] == last.stop - 1
        insn = await self._instruction(at) if is_own else None
        if insn and insn.mnemonic in ("syscall", "int"):
            return await self._called(at, "wrote")
        return Cause("thread", f"{when} by the kernel, for another")

    async def _instruction(self, at: int) -> Any:
        """Return an instruction that both ran (`capstone.CsInsn`); None where it is none."""
        side, position = self._causes.sides[0], int(self._common.positions[0, at])
        return await side.code.instruction(int(self._common.addresses[at]), position)

    async def _both(self, at: int) -> tuple[RegisterValues, RegisterValues]:
        """Return the registers of both before an instruction that both ran."""
        if at not in self._registers:
            self._registers[at] = await self._causes.both(self._positions(at))
        return self._registers[at]

    def _positions(self, at: int) -> tuple[int, int]:
        ours, theirs = self._common.positions[:, at].tolist()
        return ours, theirs


def _again(cause: Cause) -> Cause:
    """Return the cause of what follows from a difference that was passed over."""
    return Cause(cause.kind, _EARLIER + cause.what.removeprefix(_EARLIER))


def _leads_elsewhere(insn: Any) -> bool:
    """Whether what comes after an instruction is not always the same."""
    import capstone  # type: ignore[import-untyped]

    groups = (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET)
    return any(insn.group(group) for group in groups) or insn.mnemonic.startswith("rep")


def _auxiliary(words: list[int]) -> dict[int, int]:
    """Return the auxiliary vector on a program's first stack (x86-64 psABI, 3.4.1)."""
    if not words:
        return {}
    at = 1 + words[0] + 1
    while at < len(words) and words[at]:
        at += 1
    pairs = words[at + 1 :]
    return dict(zip(pairs[::2], pairs[1::2], strict=False))
