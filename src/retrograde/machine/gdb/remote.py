"""Client of QEMU's gdbstub: registers, memory, steps and stops of one parked machine.

Every wait has a deadline in seconds, after which QemuTimeout is raised; a link that ended
raises QemuDied. Cancelling is safe at any await. A cancelled or late step goes on in
QEMU, and the next request first waits for its end, because QEMU answers a request it
reads while the guest runs by stopping the guest without a word (gdb_read_byte in
gdbstub/gdbstub.c). For the same reason use this link only while the machine is parked or
was set running by this link, never while QMP has it running.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Final, Literal, Self

from retrograde.errors import QemuRefused, QemuTimeout, UsageError
from retrograde.isa.isa import Isa
from retrograde.machine.gdb.link import Answer, GdbLink
from retrograde.machine.gdb.steps import ASK_POSITION, Burst, Steps, read_position
from retrograde.machine.gdb.targetdesc import ROOT_DOCUMENT, RegisterLayout, included
from retrograde.wire.rsp import MalformedPacket
from retrograde.wire.rsp_stop import StopReply, is_stop, parse_stop

DEFAULT_SECONDS: Final = 30.0

MAX_DESCRIPTION_BYTES: Final = 1 << 20
MAX_DOCUMENTS: Final = 64

BreakpointKind = Literal["software", "hardware", "write", "read", "access"]

_KIND_NUMBERS: Final = {"software": 0, "hardware": 1, "write": 2, "read": 3, "access": 4}


class GdbRemote:
    """A link to one gdbstub. Made by `connect`; ended by `close`."""

    def __init__(self, link: GdbLink, features: dict[str, str | bool]) -> None:
        self._link = link
        self._moving: Answer | Burst | None = None
        self._last_stop: StopReply | None = None
        self.features = features
        """What the stub answered to qSupported: True or False for ``name+`` and ``name-``."""

    @classmethod
    async def connect(
        cls, endpoint: str | Path | socket.socket, *, seconds: float = DEFAULT_SECONDS
    ) -> Self:
        """Connect to a Unix socket path or take over a connected socket.

        QEMU pauses the machine when a client connects, and breakpoints an earlier client
        left are removed. Raises QemuDied when nothing listens.
        """
        try:
            async with asyncio.timeout(seconds):
                remote = cls(await GdbLink.open(endpoint), {})
        except TimeoutError:
            raise _late("accept a connection", seconds) from None
        try:
            await remote._negotiate(seconds)
        except BaseException:
            await remote.close()
            raise
        return remote

    @property
    def supports_reverse(self) -> bool:
        """True when QEMU is replaying, the one case in which it can go back."""
        return bool(self.features.get("ReverseStep") and self.features.get("ReverseContinue"))

    async def read_registers(self, *, seconds: float = DEFAULT_SECONDS) -> bytes:
        """Return the 'g' packet as received: hex digits, for `RegisterLayout.decode`."""
        return _checked(await self._ask(b"g", seconds), "the registers")

    async def read_register(self, number: int, *, seconds: float = DEFAULT_SECONDS) -> bytes:
        """Return one register, also of those not in 'g', as hex digits; raises QemuRefused."""
        return _checked(await self._ask(b"p%x" % number, seconds), f"register {number}")

    async def write_register(
        self, number: int, value: bytes, *, seconds: float = DEFAULT_SECONDS
    ) -> None:
        """Set one register, its bytes in the wire's order.

        For putting back what a snapshot left out; anything else makes the replay another one.
        """
        await self._order(b"P%x=" % number + value.hex().encode(), "a register", seconds)

    async def read_memory(
        self, address: int, count: int, *, seconds: float = DEFAULT_SECONDS
    ) -> bytes:
        """Read `count` bytes as the guest would at `address`, in its current address space.

        Physical addresses after `physical_memory_mode(True)`. Raises QemuRefused naming the
        chunk when any of it is not mapped.
        """
        data = bytearray()
        chunk = self._packet_size // 2 - 8
        while len(data) < count:
            at, size = address + len(data), min(chunk, count - len(data))
            reply = await self._ask(b"m%x,%x" % (at, size), seconds)
            data += _unhexed(_checked(reply, f"{size} bytes of memory at {at:#x}"))
        return bytes(data)

    async def physical_memory_mode(self, on: bool, *, seconds: float = DEFAULT_SECONDS) -> None:
        """Make memory addresses physical, or virtual again (docs/system/gdb.rst in QEMU)."""
        await self._order(b"Qqemu.PhyMemMode:%d" % on, "physical memory mode", seconds)

    async def insert_breakpoint(
        self, kind: BreakpointKind, address: int, size: int, *, seconds: float = DEFAULT_SECONDS
    ) -> None:
        """Set a break- or watchpoint; `size` is the bytes watched or the instruction's kind."""
        number = _KIND_NUMBERS[kind]
        await self._order(b"Z%d,%x,%x" % (number, address, size), f"a {kind} point", seconds)

    async def remove_breakpoint(
        self, kind: BreakpointKind, address: int, size: int, *, seconds: float = DEFAULT_SECONDS
    ) -> None:
        """Remove a break- or watchpoint set with the same arguments."""
        number = _KIND_NUMBERS[kind]
        await self._order(b"z%d,%x,%x" % (number, address, size), f"a {kind} point", seconds)

    async def monitor(self, command: str, *, seconds: float = DEFAULT_SECONDS) -> str:
        """Run a command of QEMU's human monitor and return what it printed."""
        answer = Answer()
        reply = await self._ask(b"qRcmd," + command.encode().hex().encode(), seconds, answer)
        _checked(reply, f"the monitor command {command!r}")
        return answer.output.decode(errors="replace")

    async def step(self, *, seconds: float = DEFAULT_SECONDS) -> StopReply:
        """Execute one instruction, or enter the handler of an interrupt or exception.

        In replay such an entry is a step of its own that leaves the position as it is;
        see `steps`. Outside replay QEMU holds interrupts and timers off while stepping.
        """
        await self._move(b"s", seconds)
        return await self.wait_stop(seconds=seconds)

    async def position(self, *, seconds: float = DEFAULT_SECONDS) -> int | None:
        """Return the position of the machine, None when it is neither recording nor replaying."""
        return read_position(await self.monitor(ASK_POSITION, seconds=seconds))

    async def step_many(
        self, count: int, *, until: int | None = None, seconds: float = DEFAULT_SECONDS
    ) -> Steps:
        """Take up to `count` steps as fast as QEMU can, keeping all registers after each.

        In replay no step is taken at position `until`: give the recording's end, from which
        a step may never stop. Also ends early at a stop that is not a plain step, such as a
        watchpoint; `Steps.stop` tells. `seconds` is the deadline of each single step. When
        cancelled, QEMU stops after the step under way.
        """
        start = await self.position(seconds=seconds)
        if count < 1 or (start is not None and until is not None and start >= until):
            raise UsageError(
                f"{count} steps from position {start} to {until} cannot be taken.",
                "Ask for at least one step, from a position before the end.",
            )
        burst = Burst(self._link, count, start, until if start is not None else None)
        self._moving = burst
        burst.start()
        try:
            taken = -1
            while not burst.future.done() and taken != burst.taken:
                taken = burst.taken
                await asyncio.wait({burst.future}, timeout=seconds)
        finally:
            burst.cut_short()
        if not burst.future.done():
            raise _late("finish a step", seconds)
        if self._moving is burst:
            self._settled()
        return burst.future.result()

    async def resume(self, *, seconds: float = DEFAULT_SECONDS) -> None:
        """Set the machine running; `wait_stop` or `interrupt` tells of its stop."""
        await self._move(b"vCont;c", seconds)

    async def reverse_step(self, *, seconds: float = DEFAULT_SECONDS) -> StopReply:
        """Go back by one position. Raises QemuRefused when QEMU is not replaying.

        QEMU loads the nearest earlier snapshot *by position alone*: any snapshot in the
        image that cannot be loaded as it is (one without RAM) makes the result wrong.
        """
        return await self._back(b"bs", seconds)

    async def reverse_continue(self, *, seconds: float = DEFAULT_SECONDS) -> StopReply:
        """Go back to the last break- or watchpoint, else to the start; see `reverse_step`."""
        return await self._back(b"bc", seconds)

    async def interrupt(self, *, seconds: float = DEFAULT_SECONDS) -> StopReply:
        """Stop a machine this link set running; one that stopped already says why it did."""
        if self._moving is not None and not self._moving.future.done():
            self._link.interrupt()
        return await self.wait_stop(seconds=seconds)

    async def wait_stop(self, *, seconds: float = DEFAULT_SECONDS) -> StopReply:
        """Wait for the machine to stop; at once, with the last stop, when it already has."""
        await self._settle(seconds)
        if self._last_stop is None:
            raise QemuRefused(
                "The machine was not set running on this gdb link.", "Resume or step it first."
            )
        return self._last_stop

    async def target_description(self, *, seconds: float = DEFAULT_SECONDS) -> dict[str, bytes]:
        """Fetch the target description: each document by name, ``target.xml`` first.

        Raises QemuRefused for a target that serves none (`Isa.bare` then has the registers).
        """
        if not self.features.get("qXfer:features:read"):
            raise QemuRefused(
                "This QEMU target serves no register description.",
                "Use the built-in register list of its ISA.",
            )
        documents: dict[str, bytes] = {}
        wanted = [ROOT_DOCUMENT]
        while wanted:
            name = wanted.pop(0)
            if name not in documents:
                documents[name] = await self._fetch(name, seconds)
                wanted += included(documents[name])
            if len(documents) > MAX_DOCUMENTS:
                raise _unreasonable()
        return documents

    async def register_layout(
        self, isa: Isa, *, seconds: float = DEFAULT_SECONDS
    ) -> RegisterLayout:
        """Return the registers of this machine, from QEMU or, where it is silent, from `isa`.

        Raises QemuRefused where 'g' ends before the pc, as sparc's does in QEMU 11.1.
        """
        if not isa.bare:
            return RegisterLayout.parse(await self.target_description(seconds=seconds))
        layout = RegisterLayout.bare(isa.bare)
        packet = await self.read_registers(seconds=seconds)
        if isa.pc not in layout.within(len(packet) // 2).names:
            raise QemuRefused(
                f"This QEMU's gdbstub leaves {isa.pc} out of the registers it sends together.",
                f"Use QEMU 10.0 for {isa.target}.",
            )
        return layout

    async def close(self) -> None:
        """Close the link. The machine stays as it is: QEMU resumes only when told to detach."""
        await self._link.close()

    @property
    def _packet_size(self) -> int:
        text = str(self.features.get("PacketSize", ""))
        try:
            return max(64, min(int(text, 16), 1 << 16))
        except ValueError:
            return 400  # the smallest any stub must take (GDB manual, "Overview")

    async def _negotiate(self, seconds: float) -> None:
        reply = await self._ask(b"qSupported:swbreak+;hwbreak+;vContSupported+", seconds)
        self.features = _parse_features(_checked(reply, "its features"))
        if await self._ask(b"QStartNoAckMode", seconds) == b"OK":
            self._link.stop_acknowledging()
        if self.features.get("qXfer:features:read"):
            # QEMU before 8 lays out 'g' as it was before there were descriptions, until a
            # client reads one (gdb_has_xml in its gdbstub.c): arm's and ppc's differ.
            await self._ask(b"qXfer:features:read:target.xml:0,1", seconds)
        self._keep_stop(await self._ask(b"?", seconds, Answer(awaits_stop=True)))

    async def _ask(self, request: bytes, seconds: float, answer: Answer | None = None) -> bytes:
        await self._settle(seconds)
        answer = answer or Answer()
        self._link.send(request, receiver=answer)
        # asyncio.wait, unlike wait_for, leaves the future alone when cancelled or late.
        await asyncio.wait({answer.future}, timeout=seconds)
        if not answer.future.done():
            raise _late(f"answer {request[:20].decode('latin-1')!r}", seconds)
        return answer.future.result()

    async def _order(self, request: bytes, what: str, seconds: float) -> None:
        if _checked(await self._ask(request, seconds), what) != b"OK":
            raise _refusal(what, "no answer")

    async def _move(self, request: bytes, seconds: float) -> None:
        # QEMU before 8.1 may have reported stops that QMP caused; this answer follows them.
        await self._ask(b"qC", seconds)
        self._moving = answer = Answer(awaits_stop=True)
        self._link.send(request, receiver=answer)

    async def _back(self, request: bytes, seconds: float) -> StopReply:
        # QEMU that is not replaying answers E22 to bs and bc, goes on, and dies on an
        # assertion (handle_backward in gdbstub/gdbstub.c, 10.0 to 10.2).
        if not self.supports_reverse:
            raise QemuRefused(
                "This QEMU is not replaying, so it cannot go back.", "Replay a recording."
            )
        await self._move(request, seconds)
        return await self.wait_stop(seconds=seconds)

    async def _settle(self, seconds: float) -> None:
        """Wait until a machine set moving by this link has stopped."""
        while self._moving is not None:
            moving = self._moving
            await asyncio.wait({moving.future}, timeout=seconds)
            if not moving.future.done():
                raise _late("stop the machine", seconds)
            if self._moving is moving:
                self._settled()

    def _settled(self) -> None:
        """Note the stop of a movement that is done. Raises what it failed with."""
        moving, self._moving = self._moving, None
        if isinstance(moving, Burst):
            self._last_stop = moving.future.result().stop
        elif moving is not None:
            self._keep_stop(moving.future.result())

    def _keep_stop(self, payload: bytes) -> None:
        if not is_stop(payload):
            raise _refusal("moving the machine", payload.decode("latin-1"))
        try:
            self._last_stop = parse_stop(payload)
        except MalformedPacket as error:
            raise _refusal("moving the machine", str(error)) from error

    async def _fetch(self, document: str, seconds: float) -> bytes:
        data = bytearray()
        size = self._packet_size // 2 - 8
        while True:
            request = b"qXfer:features:read:%s:%x,%x" % (document.encode(), len(data), size)
            part = _checked(await self._ask(request, seconds), f"the document {document!r}")
            data += part[1:]
            if len(data) > MAX_DESCRIPTION_BYTES or (part[:1] == b"m" and len(part) == 1):
                raise _unreasonable()
            if part[:1] != b"m":
                return bytes(data)


def _checked(reply: bytes, what: str) -> bytes:
    """Return `reply` unless it is an error (E and two digits) or says "unsupported"."""
    is_error = reply[:1] == b"E" and (len(reply) == 3 or reply[1:2] == b".")
    if is_error or not reply:
        raise _refusal(what, reply.decode("latin-1") or "not supported")
    return reply


def _unhexed(reply: bytes) -> bytes:
    try:
        return bytes.fromhex(reply.decode("ascii"))
    except ValueError:
        raise _refusal("reading memory", "an answer that is not hex") from None


def _parse_features(reply: bytes) -> dict[str, str | bool]:
    features: dict[str, str | bool] = {}
    for entry in reply.decode("latin-1").split(";"):
        name, separator, value = entry.partition("=")
        if separator:
            features[name] = value
        elif entry[-1:] in ("+", "-"):
            features[entry[:-1]] = entry.endswith("+")
    return features


def _refusal(what: str, answer: str) -> QemuRefused:
    return QemuRefused(
        f"QEMU's gdbstub refused {what} ({answer}).",
        "Check that the address is mapped and the machine is one that can do this.",
    )


def _unreasonable() -> QemuRefused:
    return QemuRefused(
        "QEMU serves an unreasonably large register description.",
        "Check with `retrograde doctor` that this QEMU is a stock one.",
    )


def _late(what: str, seconds: float) -> QemuTimeout:
    return QemuTimeout(
        f"QEMU's gdbstub did not {what} within {seconds:g} s.",
        "Give it more time, or start a new replayer when the guest hangs.",
    )
