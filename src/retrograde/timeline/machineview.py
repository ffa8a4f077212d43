"""How this machine's registers and memory are laid out; the same at all positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from retrograde.isa.isa import PUSHES_NOTHING, X86, Isa, isa_for
from retrograde.machine.gdb.targetdesc import Register, RegisterLayout, RegisterValues
from retrograde.machine.memorymap import RamRange, ask_ram
from retrograde.timeline.paging import can_translate
from retrograde.timeline.seat import Seat

_TOLD_AT_HITS = frozenset({"x86_64", "i386", "aarch64", "arm", "riscv64", "riscv32"})


@dataclass(frozen=True)
class MachineView:
    """Registers of the `g` packet, and where shared RAM lies in physical memory.

    `described` has all registers, also those not in the packet. `ranges` is empty when RAM
    is not a shared memory file. At the addresses in `remapped` there is RAM at some
    positions, and something else at others.
    """

    isa: Isa
    layout: RegisterLayout
    described: RegisterLayout
    ranges: tuple[RamRange, ...]
    remapped: tuple[RamRange, ...] = ()

    @classmethod
    async def of(cls, seat: Seat) -> MachineView:
        """Ask the machine in `seat`."""
        isa = isa_for(seat.recording.manifest.machine.target)
        gdb = await seat.gdb()
        described = await gdb.register_layout(isa)
        layout = described.within(len(await gdb.read_registers()) // 2)
        has_ram = seat.recording.manifest.ram.shared
        ranges, remapped = await ask_ram(seat.human, isa) if has_ram else ((), ())
        return cls(isa, layout, described, ranges, remapped)

    @cached_property
    def _mapping(self) -> slice:
        if self.isa.target not in X86:
            return slice(0, 0)
        first, last = self.layout.register("cr0"), self.layout.register("efer")
        return slice(2 * first.offset, 2 * (last.offset + last.size))

    @property
    def pushes_nothing(self) -> bool:
        """Whether interrupts and exceptions leave memory alone, as on M-profile Arm they do not."""
        return self.isa.target in PUSHES_NOTHING and "xpsr" not in self.layout.names

    @property
    def follows(self) -> bool:
        """Whether windows tell where virtual memory is, as QEMU says, for want of knowing better.

        On SPARC its stub shows stacks as if register windows had been flushed to them, which
        is not what is in RAM (sparc_cpu_memory_rw_debug in target/sparc/mmu_helper.c).
        """
        return not can_translate(self.isa.target) and not self.isa.target.startswith("sparc")

    @cached_property
    def ram(self) -> tuple[tuple[int, int], ...]:
        """First and last physical address of each range of RAM."""
        return tuple((part.start, part.stop - 1) for part in self.ranges)

    def mapping(self, packet: bytes) -> bytes:
        """Return the part of a `g` packet that all registers of the paging are in."""
        return packet[self._mapping]

    @property
    def conditional(self) -> tuple[str, ...]:
        """Names of registers that conditions may be about: those QEMU's plugins see."""
        return () if self.isa.bare else self.layout.names

    @cached_property
    def general(self) -> tuple[Register, ...]:
        """The general registers, which are up to date also in the middle of a block of code.

        Empty where they, or gdb's pc, cannot be had of the probe (docs/probe.md).
        """
        if self.isa.target not in _TOLD_AT_HITS or self.isa.bare:
            return ()
        return tuple(takewhile(lambda one: one.name != self.isa.pc, self.layout.registers))

    @cached_property
    def _unknown(self) -> bytes:
        return b"x" * (2 * self.layout.size)

    @cached_property
    def told_at_hits(self) -> tuple[Register, ...]:
        """The general registers, and on x86 those that tell its mode."""
        modes = ("cr0", "efer") if self.general and self.isa.target in X86 else ()
        return (*self.general, *(self.layout.register(name) for name in modes))

    def partial(self, pc: int, told: bytes) -> bytes:
        """Return a `g` packet with the pc and, of `told_at_hits`, what there is; else x's."""
        packet, known = bytearray(self._unknown), self.layout.register(self.isa.pc)
        value, at = pc.to_bytes(known.size, self.isa.byte_order), 0
        packet[2 * known.offset : 2 * (known.offset + known.size)] = value.hex().encode()
        for one in self.told_at_hits if told else ():
            digits = told[at : at + one.size].hex().encode()
            packet[2 * one.offset : 2 * (one.offset + one.size)] = digits
            at += one.size
        return bytes(packet)

    def decode(self, packet: bytes) -> RegisterValues:
        """Return the registers of a `g` packet, in the byte order they have there."""
        values = self.layout.decode(packet, self.isa.byte_order)
        order = self.isa.order_at(values) if self.isa.order_bit is not None else None
        return self.layout.decode(packet, order) if order else values

    def offset(self, physical: int, count: int) -> int | None:
        """Return where `count` bytes from `physical` are in RAM; None when they are not."""
        at, left = self.place(physical)
        return at if count <= left else None

    def place(self, physical: int) -> tuple[int | None, int]:
        """Return the offset in RAM of an address, None when it is not in RAM.

        The second number is for how many bytes from there the answer goes on like this.
        """
        for part in self.ranges:
            if physical < part.start:
                return None, part.start - physical
            if physical < part.stop:
                return part.offset + physical - part.start, part.stop - physical
        return None, (1 << 64) - physical

    def offsets(self, physical: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the offset in RAM of each address, -1 for those that are not in it."""
        result = np.full(len(physical), -1, dtype=np.int64)
        for part in self.ranges:
            inside = (physical >= part.start) & (physical < part.stop)
            result[inside] = physical[inside].astype(np.int64) + (part.offset - part.start)
        return result

    def physical(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the physical address of each offset in RAM, -1 where it is not known.

        That is where these bytes are when they are to be seen at all.
        """
        result = np.full(len(offsets), -1, dtype=np.int64)
        for part in (*self.ranges, *self.remapped):
            inside = (offsets >= part.offset) & (offsets < part.offset + part.stop - part.start)
            result[inside] = offsets[inside] + (part.start - part.offset)
        return result
