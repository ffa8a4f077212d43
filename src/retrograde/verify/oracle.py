"""The slow, obviously right answer: a fresh forward replay, watched by single steps.

The oracle starts QEMU on the recording as it was made (no checkpoint of ours, no probe),
goes forward only, and says what the machine looks like at the positions it is asked for.
At a position where interrupts or exceptions are taken QEMU has several states; the
oracle steps there and keeps the last, from which the next instruction retires.

What an instruction accesses is told by a gdb watchpoint that is set while it is stepped.
That RAM changes is not enough: the page walk for another access may have marked a page
table entry accessed or dirty. But QEMU pushes a delivery's frame outside of any
instruction, and a watchpoint on that memory would make it lose the delivery
(cpu_check_watchpoint in QEMU's system/watchpoint code exits the loop). So around
deliveries the watchpoint is taken out, RAM before and after is compared, and what that
does not show is left open.

Stepping shows through in one place. QEMU clears RF, set by an `iret` out of a fault's
handler, at the end of a block of translated code and not after one instruction (gen_eob
in target/i386/tcg/translate.c): an `int n` in that block pushes flags with RF when run
and without when stepped, or stopped at, in between. Both are what QEMU makes of the
recording; `straight` tells the other, and what was pushed stays in RAM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from retrograde.errors import InternalError, QemuRefused
from retrograde.isa.isa import Isa, isa_for
from retrograde.machine.gdb.remote import BreakpointKind, GdbRemote
from retrograde.machine.gdb.targetdesc import RegisterLayout, RegisterValues
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.machine.segment import ask_linear_pc
from retrograde.recording.bundle import Recording
from retrograde.timeline.digest import ram_digest
from retrograde.timeline.logfacts import LogFacts

SETTLING = 16
"""More positions in a row than have a delivery each."""

_SILENT = frozenset({"ppc64", "ppc"})
"""Targets whose QEMU does not say that a watchpoint was met."""

_PUSHES_SEEN = frozenset({"x86_64"})
"""Targets on which the probe tells what taking an interrupt writes (docs/probe.md)."""

_KINDS: dict[str, BreakpointKind] = {"r": "read", "w": "write", "rw": "access"}


@dataclass(frozen=True)
class Read:
    """A range of memory to look at."""

    address: int
    count: int
    space: Literal["virtual", "physical"] = "virtual"


@dataclass(frozen=True)
class Watched:
    """Virtual memory whose accesses are looked for: at most 8 bytes from `address`."""

    address: int
    count: int
    access: Literal["r", "w", "rw"]


@dataclass(frozen=True)
class State:
    """The machine at one position: its `g` packet, and what else was asked for.

    `pc` is the linear address of the next instruction.
    `memory` has None for ranges that are not mapped.
    """

    packet: bytes
    pc: int
    digest: str | None = None
    memory: Mapping[Read, bytes | None] = field(default_factory=dict)


@dataclass
class Walk:
    """What single steps over a span of positions showed.

    `states` has every position of the span. Instruction k accessed the watched memory
    for sure when k is in `accessed`, and may have when it is in `unsure`.
    """

    states: dict[int, State] = field(default_factory=dict)
    accessed: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)


class Oracle:
    """One fresh replay that only goes forward. Made by `start`; ended by `close`."""

    def __init__(
        self,
        recording: Recording,
        qemu: Qemu,
        facts: LogFacts,
        replayer: Replayer,
        gdb: GdbRemote,
    ) -> None:
        self.recording = recording
        self._qemu = qemu
        self._facts = facts
        self._replayer = replayer
        self._gdb = gdb
        self.isa: Isa
        self.layout: RegisterLayout

    @classmethod
    async def start(cls, recording: Recording, qemu: Qemu, facts: LogFacts) -> Self:
        """Start QEMU on `recording`; `facts` are those of its log."""
        replayer = await Replayer.start(recording, qemu)
        try:
            oracle = cls(recording, qemu, facts, replayer, await replayer.gdb())
            oracle.isa = isa_for(recording.manifest.machine.target)
            described = await oracle._gdb.register_layout(oracle.isa)
            held = len(await oracle._gdb.read_registers()) // 2
            oracle.layout = described.within(held)
        except BaseException:
            await replayer.close()
            raise
        return oracle

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the process."""
        await self._replayer.close()

    @property
    def position(self) -> int:
        """Where the oracle's machine is parked; it goes nowhere before this."""
        return self._replayer.position

    def decode(self, packet: bytes) -> RegisterValues:
        """Return the registers of a `g` packet."""
        values = self.layout.decode(packet, self.isa.byte_order)
        order = self.isa.order_at(values) if self.isa.order_bit is not None else None
        return self.layout.decode(packet, order) if order else values

    async def _pc(self, packet: bytes) -> int:
        return await ask_linear_pc(self.isa, self.decode(packet), self._gdb.monitor)

    async def state(
        self, position: int, reads: tuple[Read, ...] = (), *, digest: bool = True
    ) -> State:
        """Return the machine at `position`, which must not be behind an earlier question's."""
        if not self._facts.is_delivery(position):
            await self._replayer.run_to(position)
            return await self._look(reads, digest)
        looks = {position: reads}
        return (await self.walk(position, position, looks, digest=digest)).states[position]

    async def straight(
        self, position: int, reads: tuple[Read, ...], *, digest: bool = True
    ) -> State:
        """Return the machine at `position` from a replay of its own that stops nowhere else."""
        async with await self.start(self.recording, self._qemu, self._facts) as other:
            return await other.state(position, reads, digest=digest)

    async def walk(
        self,
        start: int,
        end: int,
        reads: Mapping[int, tuple[Read, ...]],
        *,
        digest: bool = True,
        watch: Watched | None = None,
    ) -> Walk:
        """Step from `start` to `end`, both included, and up to SETTLING instructions beyond.

        All registers are kept at all positions; at those in `reads` memory is too, and
        (with `digest`) the digest of RAM. `watch` says whose accesses to look for, by
        instructions from `start` to before `end`.
        """
        await self._replayer.run_to(self._facts.clear_before(start + 1))
        walk = Walk()
        watcher = _Watcher(self._gdb, self._facts, watch, self.isa.target)
        while True:
            here = self.position
            if here >= start:
                walk.states[here] = await self._look(reads.get(here, ()), digest and here in reads)
            if here >= self.recording.end:
                return walk
            await watcher.before(here)
            told = (await self._gdb.step()).reason is not None
            after = await self._replayer.ask_position()
            if told and after == here:
                # On ISAs whose watchpoints trap before the access it is still to come.
                await watcher.stop()
                await self._gdb.step()
                after = await self._replayer.ask_position()
            if after == here + 2:
                # What exits QEMU's loop by itself (s390x's lpswe) is not followed by the
                # step's stop. Which of the two instructions did what is not told.
                between, looked_at = here + 1, reads.get(here + 1, ())
                if start <= between <= end:
                    walk.states[between] = await self.straight(
                        between, looked_at, digest=digest and between in reads
                    )
                watcher.skipped(walk, here)
                if after > end:
                    await self._settle(watcher)
                    return walk
                continue
            if not here <= after <= here + 1:
                raise InternalError(f"A step led from {here:_} to {after:_}.")
            # What a delivery writes, the instruction before it seems to have written:
            # the position it is taken at begins with it done.
            await watcher.after(walk, here if after > here else here - 1, told)
            if after > end:
                await self._settle(watcher)
                return walk

    async def next_hit(self, pc: int, stop: int) -> int | None:
        """Return the first position from here to before `stop` whose instruction is at `pc`.

        Runs with a hardware breakpoint; `stop` must have one state only (LogFacts). The
        instruction counts when it retires, not when it faults. The machine then is at
        the position returned or beyond it by one, at `stop` when there is none.
        """
        while self.position < stop:
            here = self.position
            packet = await self._gdb.read_registers()
            here_pc = await self._pc(packet)
            if here_pc == pc and not self._facts.is_delivery(here):
                return here
            await self._gdb.step()
            after = await self._replayer.ask_position()
            if here_pc == pc and after > here:
                return here
            if after < stop and await self._pc(await self._gdb.read_registers()) != pc:
                await self._run_to_break(pc, stop)
        return None

    async def _run_to_break(self, pc: int, stop: int) -> None:
        await self._gdb.insert_breakpoint("hardware", pc, 1)
        await self._replayer.monitor.execute("replay-break", {"icount": stop})
        await self._gdb.resume()
        await self._gdb.wait_stop(seconds=600)
        await self._gdb.remove_breakpoint("hardware", pc, 1)
        await self._replayer.monitor.execute("replay-delete-break")
        await self._replayer.ask_position()

    async def _settle(self, watcher: _Watcher) -> None:
        """Take the watchpoint out, and step on to a position without a delivery.

        A watchpoint met in a single step leaves a debug interrupt pending in QEMU, which
        would stop the next run before its first instruction. It outlives a step to where
        an exception is taken.
        """
        if not watcher.is_watching:
            return
        await watcher.stop()
        is_settled = False
        while not is_settled and self.position < self.recording.end:
            await self._gdb.step()
            is_settled = not self._facts.is_delivery(await self._replayer.ask_position())

    async def _look(self, reads: tuple[Read, ...], digest: bool) -> State:
        packet = await self._gdb.read_registers()
        memory = {read: await self._read(read) for read in reads}
        digested = None
        if digest and self.recording.manifest.ram.shared:
            digested = ram_digest(self._replayer.ram.array())
        return State(packet, await self._pc(packet), digested, memory)

    async def _read(self, read: Read) -> bytes | None:
        physical = read.space == "physical"
        try:
            if physical:
                await self._gdb.physical_memory_mode(True)
            return await self._gdb.read_memory(read.address, read.count)
        except QemuRefused:
            return None
        finally:
            if physical:
                await self._gdb.physical_memory_mode(False)


class _Watcher:
    """Looks for accesses to one range while somebody else steps."""

    def __init__(
        self, gdb: GdbRemote, facts: LogFacts, watched: Watched | None, target: str
    ) -> None:
        self._tells = target not in _SILENT
        self._pushes_seen = target in _PUSHES_SEEN
        self._gdb = gdb
        self._facts = facts
        self._watched = watched
        self._is_set = False
        self._before: tuple[bytes | None, list[str]] = (None, [])

    @property
    def is_watching(self) -> bool:
        """Whether there is anything to look for."""
        return self._watched is not None

    async def before(self, position: int) -> None:
        """Get ready for a step from `position`."""
        if self._watched is None:
            return
        # The instruction before a delivery too: a debug exception it causes together with
        # gdb's watchpoint made QEMU 10.0 fail on an assertion of replay's.
        wanted = not any(self._facts.is_delivery(at) for at in (position, position + 1))
        if wanted and not self._is_set:
            watched = self._watched
            await self._gdb.insert_breakpoint(
                _KINDS[watched.access], watched.address, watched.count
            )
            self._is_set = True
        elif not wanted:
            await self.stop()
        if not self._is_set or not self._tells:
            self._before = await self._read()

    async def after(self, walk: Walk, instruction: int, told: bool) -> None:
        """Note in `walk` what a step by `instruction` did; gdb `told` of an access."""
        if self._watched is None:
            return
        if self._is_set and self._tells:
            if told:
                walk.accessed.add(instruction)
            return
        (old, old_place), (new, place) = self._before, await self._read()
        # Other contents because another page was mapped there are no access.
        changed = old != new and old_place == place
        by_delivery = self._facts.is_delivery(instruction + 1) and not self._pushes_seen
        if changed and "w" in self._watched.access and not by_delivery:
            walk.accessed.add(instruction)
        walk.unsure.add(instruction)

    def skipped(self, walk: Walk, instruction: int) -> None:
        """Note in `walk` that a step did both `instruction` and the next."""
        if self._watched is not None:
            walk.unsure |= {instruction, instruction + 1}

    async def stop(self) -> None:
        """Take the watchpoint out."""
        if self._is_set and self._watched is not None:
            watched = self._watched
            await self._gdb.remove_breakpoint(
                _KINDS[watched.access], watched.address, watched.count
            )
            self._is_set = False

    async def _read(self) -> tuple[bytes | None, list[str]]:
        """Return the watched bytes, and where in physical memory the first and last lie."""
        assert self._watched is not None
        address, count = self._watched.address, self._watched.count
        ends = (address, address + count - 1)
        place = [await self._gdb.monitor(f"gva2gpa {end:#x}") for end in ends]
        try:
            return await self._gdb.read_memory(address, count), place
        except QemuRefused:
            return None, place
