"""What a machine that stands at a position can do for those who have history.

A Replayer is one, and so is the model that tests the timeline's algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from retrograde.isa.isa import Isa
from retrograde.machine.gdb.steps import Steps
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.machine.ram import GuestRam
from retrograde.machine.snapshot import Snapshot

Progress = Callable[[int], None]


class Stub(Protocol):
    """A gdbstub, for looking and stepping (machine.gdb.remote)."""

    async def register_layout(self, isa: Isa) -> RegisterLayout:
        """Return the registers of this machine, from QEMU or, where it is silent, from `isa`."""

    async def target_description(self) -> dict[str, bytes]:
        """Return the target description, each document by name."""

    async def read_registers(self) -> bytes:
        """Return the `g` packet, hex digits."""

    async def read_register(self, number: int) -> bytes:
        """Return one register, also of those not in `g`, as hex digits."""

    async def read_memory(self, address: int, count: int) -> bytes:
        """Return `count` bytes as the guest would read them; raises QemuRefused."""

    async def physical_memory_mode(self, on: bool) -> None:
        """Make memory addresses physical, or virtual again."""

    async def step(self) -> object:
        """Execute one instruction, or enter a handler (machine.gdb.steps)."""

    async def step_many(self, count: int, *, until: int | None = None) -> Steps:
        """Take up to `count` steps, none at position `until`, and keep all registers."""


class Parked(Protocol):
    """A machine at a position; its methods are those of Replayer, which see."""

    @property
    def position(self) -> int:
        """The position the machine was at when last asked."""

    @property
    def ram(self) -> GuestRam:
        """Guest RAM, in place; of size 0 where it is QEMU's own."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def at_end(self) -> bool:
        """Whether the replay ran out of log: this process can then go nowhere."""

    @property
    def lost(self) -> bool:
        """Whether a movement was cancelled or failed, so that its position is unknown."""

    @property
    def can_load(self) -> bool:
        """Whether a snapshot taken on the way loads as it was saved."""

    @property
    def has_loaded(self) -> bool:
        """Whether a snapshot was loaded since the process was started."""

    @property
    def must_prove(self) -> bool:
        """Whether snapshots are good at some positions only, and each has to prove itself."""

    @property
    def kept_code(self) -> bool:
        """Whether the last load has left in use what was translated before."""

    async def gdb(self) -> Stub:
        """Return the gdbstub."""

    async def human(self, line: str) -> str:
        """Return what a command of the human monitor says; `line` must only look."""

    async def short_blocks(self, on: bool) -> None:
        """Have one instruction run a block, or as many as fit."""

    async def run_to(self, position: int, progress: Progress | None = None) -> None:
        """Run forward to `position`; one with two states may be in either."""

    async def ask_position(self) -> int:
        """Ask the machine where it is, after steps."""

    async def is_quiet(self) -> bool:
        """Say whether nothing is in flight: it can be saved and loaded."""

    async def keeps_code(self) -> bool:
        """Say, after a load that kept code, whether it is used; the machine moves."""

    async def save(self, tag: str) -> None:
        """Save the state here but for RAM; raises QemuRefused."""

    async def load(self, snapshot: Snapshot) -> None:
        """Load a state; raises RequestsInFlight, QemuRefused."""

    async def close(self) -> None:
        """End the process. Safe to repeat."""
