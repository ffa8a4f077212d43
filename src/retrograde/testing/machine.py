"""The model CPU behind the interfaces of a replayer and of its gdbstub.

It goes forward and loads what was saved, as QEMU does, and is as unhelpful: it stops at
a position with several moments in any of them, it may be told to die, and it gives
others their turn at every await, so that cancelling finds it in the middle.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from retrograde.commandline.command import RAM_ID
from retrograde.errors import InternalError, QemuDied, QemuRefused
from retrograde.isa.isa import Isa
from retrograde.machine.gdb.steps import Steps
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.machine.quiet import RequestsInFlight
from retrograde.machine.ram import GuestRam
from retrograde.machine.snapshot import Snapshot
from retrograde.testing.cpu import NAMES, RAM_BYTES, Execution
from retrograde.wire.rsp_stop import SIGTRAP, StopReply

if TYPE_CHECKING:
    from retrograde.testing.probe import ModelProbe

TREE = f"  0000000000000000-{RAM_BYTES - 1:016x} (prio 0, ram): {RAM_ID}\n"
"""What the human monitor answers to `info mtree -f`."""


class ModelReplayer:
    """One process replaying an execution, parked at a moment.

    `dies` is the chance that any movement ends in QemuDied. A process that `keeps_code`
    has what the probe was armed for begin at its first load only. At positions that are
    `busy` disk requests are in flight.
    """

    def __init__(
        self,
        execution: Execution,
        probe: ModelProbe | None,
        saved: dict[str, int],
        dice: random.Random,
        dies: float,
        keeps_code: bool,
        busy: Container[int],
    ) -> None:
        self.execution = execution
        self.moment = 0
        self.lost = False
        self.at_end = False
        self.can_load = True
        self.kept_code = False
        self.must_prove = False
        self.ram = GuestRam(RAM_BYTES)
        self.pid = 0
        self._probe = probe
        self._saved = dict(saved)
        self._dice = dice
        self._dies = dies
        self._keeps_code = keeps_code
        self._busy = busy
        self.has_loaded = False
        self._has_run = False
        self._position = 0
        self._apply(0)

    @property
    def position(self) -> int:
        """The position the machine was at when last asked."""
        return self._position

    async def human(self, line: str) -> str:
        """Return where the RAM is; nothing else is asked."""
        await self._turn()
        return TREE if line == "info mtree -f" else ""

    async def short_blocks(self, _on: bool) -> None:
        """Do nothing: there are no blocks."""

    async def gdb(self) -> ModelGdb:
        """Return the link to the gdbstub."""
        return ModelGdb(self)

    async def run_to(self, position: int, _progress: Callable[[int], None] | None = None) -> None:
        """Run forward to some moment of `position`."""
        if position < self.position:
            raise InternalError(f"run_to({position:_}) is behind {self.position:_}.")
        if position == self.position:
            return
        self.lost = True
        await self._turn()
        last = self.execution.last[position]
        first = self.execution.last[position - 1] + 1
        self._forward(self._dice.randint(self.moment, first))
        await self._turn()
        self._forward(self._dice.randint(first, last))
        await self.ask_position()
        self.lost = False
        self.at_end = position == self.execution.end and self._dice.random() < 0.5

    async def ask_position(self) -> int:
        """Ask the machine for its position."""
        await self._turn()
        self._position = self.execution.positions[self.moment]
        return self._position

    async def is_quiet(self) -> bool:
        """Say whether no disk request is in flight."""
        await self._turn()
        return self._position not in self._busy

    async def save(self, tag: str) -> None:
        """Save the machine's state but its RAM."""
        await self._require_quiet()
        self._saved[tag] = self.moment

    async def load(self, snapshot: Snapshot) -> None:
        """Load a saved state; what the probe was armed for begins here."""
        if self.at_end:
            raise InternalError("A replayer that reached the end of the log cannot go back.")
        await self._require_quiet()
        self.lost = self.has_loaded = True
        await self._turn()
        self.moment = self._saved[snapshot.tag]
        if snapshot.fill:
            snapshot.fill(self.ram)
            (snapshot.mend or snapshot.fill)(self.ram)
        else:
            self.ram.array()[:] = bytearray(self.execution.ram_at(self.moment))
        self.kept_code = self._keeps_code
        if self._probe and not (self._keeps_code and self._has_run):
            self._probe.begin(snapshot.position)
        await self.ask_position()
        self.lost = False
        if self.position != snapshot.position:
            raise QemuRefused(
                f"Snapshot {snapshot.tag} is of {self.position:_}, not {snapshot.position:_}."
            )

    async def keeps_code(self) -> bool:
        """Say whether code is kept, after a step."""
        await self.step()
        return self._keeps_code

    async def step(self) -> None:
        """Go to the next moment; the position is not asked for."""
        await self._turn()
        if self.moment + 1 < len(self.execution.positions):
            self._forward(self.moment + 1)
        await self._turn()

    async def close(self) -> None:
        """Give the RAM back."""
        self.ram.close()

    def _forward(self, moment: int) -> None:
        self._has_run = True
        for one in range(self.moment + 1, moment + 1):
            self._apply(one)
        self.moment = moment
        if self._probe:
            self._probe.advance(self.execution.positions[moment])

    def _apply(self, moment: int) -> None:
        ram = self.ram.array()
        for address, data in self.execution.writes[moment]:
            ram[address : address + len(data)] = bytearray(data)

    async def _require_quiet(self) -> None:
        if not await self.is_quiet():
            raise RequestsInFlight(f"Disk requests are in flight at {self._position:_}.")

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self._dice.random() < self._dies:
            self._dies = 1.0  # the dead stay dead
            raise QemuDied("The model machine died.")


class ModelGdb:
    """The gdbstub of a ModelReplayer."""

    def __init__(self, replayer: ModelReplayer) -> None:
        self._replayer = replayer

    async def register_layout(self, _isa: Isa) -> RegisterLayout:
        """Return the registers of the model CPU."""
        return RegisterLayout.bare((name, 64) for name in NAMES)

    async def read_registers(self) -> bytes:
        """Return the `g` packet."""
        await asyncio.sleep(0)
        return packet_of(self._replayer.execution.registers[self._replayer.moment])

    async def target_description(self) -> dict[str, bytes]:
        """Return none."""
        return {}

    async def read_register(self, number: int) -> bytes:
        """Raise QemuRefused: all are in the packet."""
        raise QemuRefused(f"There is no register {number} that is not in the packet.")

    async def read_memory(self, address: int, count: int) -> bytes:
        """Return bytes of RAM; raises QemuRefused outside."""
        await asyncio.sleep(0)
        if address + count > RAM_BYTES:
            raise QemuRefused(f"There is no memory at {address:#x}.")
        return bytes(self._replayer.ram.view()[address : address + count])

    async def physical_memory_mode(self, _on: bool) -> None:
        """Do nothing: virtual addresses are physical ones."""

    async def step(self) -> None:
        """Go to the next moment."""
        await self._replayer.step()

    async def step_many(self, count: int, *, until: int | None = None) -> Steps:
        """Take up to `count` steps, none at position `until`."""
        replayer, packets, positions = self._replayer, [], []
        for _ in range(count):
            if replayer.execution.positions[replayer.moment] == until:
                break
            await replayer.step()
            packets.append(packet_of(replayer.execution.registers[replayer.moment]))
            positions.append(replayer.execution.positions[replayer.moment])
        return Steps(packets, positions, StopReply(SIGTRAP))


def packet_of(registers: tuple[int, ...]) -> bytes:
    """Return registers as a `g` packet, hex digits."""
    return b"".join(value.to_bytes(8, "little") for value in registers).hex().encode()
