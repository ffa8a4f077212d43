"""What single steps and RAM itself show of a span: the tables' witness.

gdb steps through each span in a fresh replay without a probe, and every register, every
instruction and RAM before and after are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import QemuRefused
from retrograde.isa.isa import Isa, isa_for
from retrograde.machine.gdb.remote import GdbRemote
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.machine.probe.page import LINE_BYTES, PAGE_BYTES
from retrograde.machine.qemu import Qemu
from retrograde.machine.ram import MIB, GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.machine.segment import ask_linear_pc
from retrograde.recording.bundle import Recording
from retrograde.verify.conventions import CONVENTIONS

Span: TypeAlias = tuple[int, int]
"""Positions (first, last): those from `first` to before `last`."""

LONGEST_CODE = 15
"""Bytes of an instruction, at most."""

TRAP_FLAG = 1 << 8
"""In x86's flags: a trap follows the instruction."""


@dataclass
class Seen:
    """A span as single steps and RAM show it.

    `states` has the registers at each position, after what is delivered there; `arrived`
    is the pc where the instruction before led, `pcs` that of the one that retires next.
    `changed` are numbers of RAM's lines.
    """

    states: dict[int, Mapping[str, int]] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=dict)
    pcs: dict[int, int] = field(default_factory=dict)
    codes: dict[int, bytes] = field(default_factory=dict)
    changed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


async def step_through(
    recording: Recording, qemu: Qemu, spans: Sequence[Span]
) -> AsyncGenerator[tuple[Span, Seen], None]:
    """Yield what single steps show of each of `spans`, in one fresh replay."""
    async with await Replayer.start(recording, qemu) as replayer:
        gdb = await replayer.gdb()
        look = await _Look.of(gdb, isa_for(recording.manifest.machine.target))
        for first, last in spans:
            await replayer.run_to(first)
            before, seen = _contents(replayer.ram), Seen()
            while True:
                await look(seen, replayer.position)
                if replayer.position >= last:
                    break
                await gdb.step()
                await replayer.ask_position()
            seen.changed = _changed(before, _contents(replayer.ram))
            yield (first, last), seen


def _contents(ram: GuestRam) -> dict[int, NDArray[np.uint64]]:
    """Return the RAM that was touched so far, by number of its MiB."""
    array = ram.array()
    return {
        int(number): array[number * MIB : (number + 1) * MIB].copy().view(np.uint64)
        for number in np.flatnonzero(ram.present())
    }


def _changed(
    before: Mapping[int, NDArray[np.uint64]], after: Mapping[int, NDArray[np.uint64]]
) -> NDArray[np.int64]:
    """Return the numbers of the lines that differ."""
    found = [np.zeros(0, np.int64)]
    for number, contents in after.items():
        differs = before.get(number, np.zeros_like(contents)) != contents
        lines = np.flatnonzero(differs.reshape(-1, LINE_BYTES // 8).any(axis=1))
        found.append(number * (MIB // LINE_BYTES) + lines)
    return np.concatenate(found)


class _Look:
    """Reads registers and code of a machine that somebody steps."""

    def __init__(self, gdb: GdbRemote, isa: Isa, described: RegisterLayout, held: int) -> None:
        self._gdb = gdb
        self._isa = isa
        self._layout = described.within(held)
        self._others = {
            name: described.register(name).number
            for name in CONVENTIONS[isa.target].special
            if name not in self._layout.names
        }

    @classmethod
    async def of(cls, gdb: GdbRemote, isa: Isa) -> Self:
        """Ask `gdb` which registers there are."""
        return cls(gdb, isa, await gdb.register_layout(isa), len(await gdb.read_registers()) // 2)

    async def __call__(self, seen: Seen, position: int) -> None:
        """Add the machine at `position` to what was seen of a span."""
        packet = await self._gdb.read_registers()
        values = self._layout.decode(packet, self._isa.byte_order)
        order = self._isa.order_at(values)
        state = dict(self._layout.decode(packet, order))
        for name, number in self._others.items():
            digits = await self._gdb.read_register(number)
            state[name] = int.from_bytes(bytes.fromhex(digits.decode()), order)
        pc = await ask_linear_pc(self._isa, state, self._gdb.monitor)
        code = await self._code(pc)
        if self._isa.target != "x86_64" and order == "big":
            code = code[3::-1]
        before = seen.states.get(position - 1, {})
        seen.states[position] = state
        if position not in seen.arrived:
            seen.arrived[position] = await self._led(before, state, pc)
        seen.pcs[position], seen.codes[position] = pc, code

    async def _led(self, before: Mapping[str, int], state: Mapping[str, int], pc: int) -> int:
        """Return where an instruction led: if the guest traces itself, its trap pushed that.

        A single step ends in the handler then.
        """
        if not before.get("eflags", 0) & TRAP_FLAG or state["eflags"] & TRAP_FLAG:
            return pc
        return int.from_bytes(await self._gdb.read_memory(state["rsp"], 8), "little")

    async def _code(self, pc: int) -> bytes:
        """Return the bytes of an instruction; zeros where the next page is not mapped."""
        size = min(LONGEST_CODE, PAGE_BYTES - pc % PAGE_BYTES)
        with contextlib.suppress(QemuRefused):
            return await self._gdb.read_memory(pc, LONGEST_CODE)
        with contextlib.suppress(QemuRefused):
            return (await self._gdb.read_memory(pc, size)).ljust(LONGEST_CODE, b"\0")
        return bytes(LONGEST_CODE)
