"""Many single steps in one go, with all registers and the position after each.

What a step does in replay (accel/tcg/cpu-exec.c in QEMU 10.0; measured on x86_64, 45 000
steps against the rr log):

- An instruction that retires moves the position by exactly one, never more. A `rep` string
  instruction takes rcx + 1 steps and positions: one an iteration, one to find rcx at zero.
- Taking an interrupt, or a fault of the next instruction, is a step of its own that moves
  the position by zero and ends at the handler's first instruction. One position then has
  two states, before and after the delivery, so states cannot be numbered by counting.
  Steps show both, always in that order. `replay-seek` and `replay-break` to such a position
  end in either of the two at random: the vCPU may deliver before the main loop stops it.
- A software interrupt (`int n`) retires: one step, one position, into the handler. So does
  `hlt` together with the interrupt that ends it: no step shows the halted state, where
  `replay-seek` to that position does stop.
- A shutdown in the log may be lost on QEMU, which has stopped for the step already (seen
  each time with a guest's own, 1 in 14 with the one that ends the log). Steps then go on,
  but one taken at the very end of the log never stops: hence `until`.

Cost: per step QEMU wakes its main loop and its vCPU thread several times and drops all
translated code (tb_flush in gdb_vm_state_change), 0.2-0.3 ms that no client can avoid. What
it can: 'g' and the next 's' travel together, because QEMU answers 'g' before it acts on
's'. Never the other way round: a request read after 's' stops the guest half-way.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.errors import QemuDied
from retrograde.machine.gdb.link import GdbLink
from retrograde.wire.rsp_stop import StopReply, parse_stop

ASK_POSITION: Final = "info replay"
_ASK_POSITION: Final = b"qRcmd," + ASK_POSITION.encode().hex().encode()
_POSITION: Final = re.compile(r"instruction count = (\d+)")


def read_position(answer: str) -> int | None:
    """Return the position the monitor's `info replay` tells, None when not replaying."""
    match = _POSITION.search(answer)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Steps:
    """What a burst of steps went through.

    `registers[i]` is the 'g' packet after step i+1, hex digits as received, and
    `positions[i]` the position there (no positions when QEMU is not replaying). `stop` is
    the reply to the last step: not a plain trap when it ended the burst early.
    """

    registers: list[bytes]
    positions: list[int]
    stop: StopReply


class Burst:
    """The conversation of `Steps`, led from the link's callback without waking a task."""

    def __init__(self, link: GdbLink, count: int, start: int | None, until: int | None) -> None:
        """Plan `count` steps from position `start` (None: not replaying), none at `until`."""
        self.future: asyncio.Future[Steps] = asyncio.get_running_loop().create_future()
        self.taken = 0
        self._link = link
        self._left = count
        self._look = (b"g",) if start is None else (b"g", _ASK_POSITION)
        self._position = start or 0
        self._until = until
        self._registers: list[bytes] = []
        self._positions: list[int] = []
        self._awaited: Literal["stop", "registers", "position"] = "stop"
        self._steps_on = False
        self._stop: StopReply | None = None

    def start(self) -> None:
        """Send the first step."""
        self._link.send(b"s", receiver=self)

    def cut_short(self) -> None:
        """Take no further step than the one under way."""
        self._left = 0

    @property
    def awaits_stop(self) -> bool:
        """Whether a step is under way; see link.Receiver."""
        return self._awaited == "stop"

    def receive(self, payload: bytes) -> bool:
        """Take a packet; see link.Receiver."""
        if self._awaited == "stop":
            return self._on_stop(payload)
        if self._awaited == "registers":
            self._registers.append(payload)
            if len(self._look) == 2:
                self._awaited = "position"
                return False
        elif payload[:1] == b"O" and payload != b"OK":
            self._on_position(payload)
            return False
        return self._on_looked()

    def fail(self, error: QemuDied) -> None:
        """Pass the error to whoever waits, if anybody still does."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # marks it seen: the waiter may be long gone

    def _on_stop(self, payload: bytes) -> bool:
        self._stop = parse_stop(payload)
        self.taken += 1
        self._left -= 1
        self._awaited = "registers"
        if self._stop.kind != "signal":
            return self._finish()
        # A step moves the position by one at most, so before the answer is here it is
        # known that the next step may be taken, or not known yet.
        self._steps_on = self._may_step(self._position + 1)
        self._link.send(*self._look, *((b"s",) if self._steps_on else ()))
        return False

    def _may_step(self, position: int) -> bool:
        assert self._stop is not None
        before_end = self._until is None or position < self._until
        return self._left > 0 and before_end and self._stop.is_plain_trap

    def _on_position(self, output: bytes) -> None:
        position = read_position(bytes.fromhex(output[1:].decode("ascii")).decode())
        if position is not None:
            self._position = position
            self._positions.append(position)

    def _on_looked(self) -> bool:
        self._awaited = "stop"
        if self._steps_on:
            return False
        if self._may_step(self._position):
            self._link.send(b"s")
            return False
        return self._finish()

    def _finish(self) -> bool:
        assert self._stop is not None
        self.future.set_result(Steps(self._registers, self._positions, self._stop))
        return True
