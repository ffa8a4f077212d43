"""One client's conversation: requests in, answers out, no sockets.

Packets: GDB manual, appendix "GDB Remote Serial Protocol"; lldb's own are in LLVM's
lldb/docs/resources/lldbgdbremote.md. What is not known gets an empty answer, as the
protocol wants it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from retrograde.errors import RetrogradeError
from retrograde.gdbserver import target
from retrograde.gdbserver.face import face_of
from retrograde.gdbserver.memory import Memory
from retrograde.gdbserver.mode import ModeChoice
from retrograde.gdbserver.monitor import MonitorCommands
from retrograde.gdbserver.motion import Motion, Stop
from retrograde.gdbserver.points import MAX_POINTS, Points
from retrograde.gdbserver.program import ProgramFile
from retrograde.gdbserver.requests import (
    E_FAULT,
    E_INTERRUPTED,
    E_INVALID,
    E_READ_ONLY,
    Move,
    Refusal,
    concerns_us,
    hexadecimal,
    move_of,
    pair,
    point_of,
)
from retrograde.machine.gdb.targetdesc import ROOT_DOCUMENT
from retrograde.position import format_position
from retrograde.timeline.moving import Progress
from retrograde.timeline.timeline import Timeline
from retrograde.visible import visible
from retrograde.wire.rsp_stop import StopReason

PACKET_BYTES: Final = 0x20000
"""The most gdb takes (MAX_REMOTE_PACKET_SIZE in remote.c)."""

_FEATURES: Final = (
    *(f"PacketSize={PACKET_BYTES:x}", "QStartNoAckMode+", "vContSupported+", "swbreak+"),
    *("hwbreak+", "ReverseStep+", "ReverseContinue+", "ConditionalBreakpoints+"),
    *("qXfer:features:read+", "qXfer:memory-map:read+"),
    *("qXfer:threads:read+", "binary-upload+"),
)

_EXEC_FILE: Final = "qXfer:exec-file:read+"

_READ_ONLY: Final = "The past is read-only: registers and memory cannot be written."

_PLAIN: Final[dict[bytes, bytes]] = {
    b"qC": b"QC1",
    b"qfThreadInfo": b"m1",
    b"qsThreadInfo": b"l",
    b"qAttached": b"1",
    b"qSymbol::": b"OK",
    # By these gdb's helpers know a QEMU (gdbstub/gdbstub.c); a past is stepped one way only.
    b"qqemu.sstepbits": b"ENABLE=1,NOIRQ=2,NOTIMER=4",
    b"qqemu.sstep": b"0x1",
    b"vCont?": b"vCont;c;C;s;S;t;r",
    b"qWatchpointSupportInfo:": b"num:%d;" % MAX_POINTS,
}

_NO_ACK: Final = b"QStartNoAckMode"
_SUFFIXED: Final = b"QThreadSuffixSupported"
_LISTS_THREADS: Final = b"QListThreadsInStopReply"
_LLDB_ERRORS: Final = b"QEnableErrorStrings"
_SWITCHES: Final = {_NO_ACK, _SUFFIXED, _LISTS_THREADS, _LLDB_ERRORS}
"""Requests that switch something on; _SUFFIXED and _LISTS_THREADS are lldb's."""


class Session:
    """The state of one conversation over `timeline`, whose cursor outlives it."""

    def __init__(self, timeline: Timeline, say: Callable[[str], None], mode: ModeChoice) -> None:
        """`say` shows a text to the client's user."""
        self.ended = False
        self._timeline = timeline
        self._say = say
        self._points = Points()
        self._mode = mode
        self._shown = mode.now
        self._face = face_of(timeline.view, mode.now)
        self._motion = Motion(timeline, self._points, self._face)
        self._memory = Memory(timeline)
        self._monitor = MonitorCommands(timeline, mode)
        program = timeline.recording.program()
        self._program = ProgramFile(program) if program else None
        self._documents: dict[str, bytes] | None = None
        self._stop = Stop()
        self._on: set[bytes] = set()
        self._gdb_errors = self._is_gdb = False
        self._names_breaks = {StopReason.SOFTWARE_BREAK: False, StopReason.HARDWARE_BREAK: False}

    @property
    def no_ack(self) -> bool:
        """Whether neither side acknowledges packets any more."""
        return _NO_ACK in self._on

    @property
    def asks_one_by_one(self) -> bool:
        """Whether the client is known to be a gdb.

        It never asks on before it has its answer, unless it has given that up. lldb does,
        to find out where it is in the conversation.
        """
        return self._is_gdb and _SUFFIXED not in self._on

    async def answer(self, request: bytes, progress: Progress) -> bytes:
        """Return the answer to a request. Cancelling is safe; see `interrupted`."""
        try:
            if move := move_of(request):
                return await self._move(move, progress)
            return await self._look(request)
        except Refusal as refusal:
            return self._error(refusal.number, refusal.text, request)
        except RetrogradeError as error:
            if move_of(request):
                # gdb shows no text of an error here; what stopped must be said apart.
                self._say(f"{error}\n")
                return await self._stopped(Stop())
            return self._error(E_FAULT, f"{error.what} {error.remedy}".strip(), request)

    async def interrupted(self, request: bytes, reached: int | None) -> bytes:
        """Return the answer to a request that was cancelled on the client's wish.

        A machine that was moving stays at `reached`, up to where nothing stopped it.
        """
        if move_of(request) is None:
            return self._error(E_INTERRUPTED, "Interrupted.", request)
        if reached is not None:
            await self._timeline.seek(reached)
        return await self._stopped(Stop(signal=2))

    def close(self) -> None:
        """Give back what was opened for the client."""
        if self._program:
            self._program.close()

    async def _move(self, move: Move, progress: Progress) -> bytes:
        motion = self._motion
        if move.what == "step":
            stop = await motion.step()
        elif move.what == "step-back":
            stop = await motion.step_back()
        elif move.what == "range":
            stop = await motion.step_range(move.start, move.stop)
        elif move.what == "run":
            stop = await motion.run(progress)
        elif move.what == "run-back":
            stop = await motion.run_back(progress)
        else:
            stop = Stop(signal=0)
        if stop.log_end:
            self._say(self._why_here(stop.log_end))
        await self._memory.get_ready()
        await self._doubt_mode()
        return await self._stopped(stop)

    async def _doubt_mode(self) -> None:
        """Say once when the CPU has come to run other code than the client takes it for."""
        doubt = await self._mode.doubt(self._timeline, self._shown)
        if doubt:
            self._say(doubt)

    def _why_here(self, log_end: str) -> str:
        """Say what gdb cannot: it has one sentence for both ends of history."""
        if log_end == "begin":
            return "The recording starts here.\n"
        ending = self._timeline.recording.manifest.ending
        return f"The recording ends here{f' ({ending})' if ending else ''}.\n"

    async def _stopped(self, stop: Stop) -> bytes:
        self._stop = stop
        packet = await self._seen(await self._timeline.glimpse())
        reply = b"T%02x" % stop.signal
        if stop.reason and self._names_breaks.get(stop.reason, True):
            reply += _reason(stop)
        reply += b"thread:1;" + target.expedited(self._face.view, packet)
        if _LISTS_THREADS in self._on:
            reply += b"threads:1;"
            if not stop.reason:  # lldb would take it for the number of a watchpoint
                where = f"at {format_position(self._timeline.position)}".encode().hex()
                reply += b"description:%s;" % where.encode()
        return reply

    async def _look(self, request: bytes) -> bytes:
        if request in _PLAIN:
            return _PLAIN[request]
        if request in _SWITCHES:
            self._on.add(request)
            return b"OK"
        for prefix, handler in self._handlers:
            if request.startswith(prefix):
                return await handler(self, request[len(prefix) :])
        return b""

    async def _status(self, _rest: bytes) -> bytes:
        return await self._stopped(self._stop)

    async def _supported(self, rest: bytes) -> bytes:
        theirs = rest.removeprefix(b":").split(b";")
        self._gdb_errors = b"error-message+" in theirs
        self._is_gdb = b"vContSupported+" in theirs
        for reason in self._names_breaks:
            self._names_breaks[reason] = reason.value.encode() + b"+" in theirs
        return ";".join((*_FEATURES, *([_EXEC_FILE] if self._program else []))).encode()

    async def _registers(self, rest: bytes) -> bytes:
        if rest and not rest.startswith(b";thread:"):
            return b""
        return await self._seen(await self._timeline.packet())

    async def _seen(self, packet: bytes) -> bytes:
        """Return QEMU's registers as the client has them."""
        if not self._face.document:
            return packet
        return self._face.packet(packet, await self._timeline.pc(), self._timeline.view)

    async def _register(self, rest: bytes) -> bytes:
        number = hexadecimal(rest.partition(b";")[0])
        packet = await self._seen(await self._timeline.packet())
        view = self._face.view
        digits = target.register_digits(view, packet, number)
        if digits is None and any(one.number == number for one in view.described.registers):
            return await self._timeline.register(number)
        if digits is None:
            raise Refusal(E_INVALID, f"There is no register {number}.")
        return digits

    async def _memory_hex(self, rest: bytes) -> bytes:
        address, count = pair(rest)
        return (await self._memory.read(address, min(count, PACKET_BYTES // 2))).hex().encode()

    async def _memory_binary(self, rest: bytes) -> bytes:
        return await self._memory.binary(*pair(rest))

    async def _search(self, rest: bytes) -> bytes:
        start, _, rest = rest.partition(b";")
        count, _, pattern = rest.partition(b";")
        found = await self._memory.find(hexadecimal(start), hexadecimal(count), pattern)
        return b"0" if found is None else b"1,%x" % found

    async def _physical(self, rest: bytes) -> bytes:
        if rest not in (b"0", b"1"):
            raise Refusal(E_INVALID, "Physical memory mode is 0 or 1.")
        self._memory.space = "physical" if rest == b"1" else "virtual"
        return b"OK"

    async def _is_physical(self, _rest: bytes) -> bytes:
        return b"%d" % (self._memory.space == "physical")

    async def _insert(self, rest: bytes) -> bytes:
        point = point_of(rest, self._memory.space)
        if not self._timeline.can_search:
            raise Refusal(E_INVALID, "Break- and watchpoints need the probe.")
        if len(self._points) >= MAX_POINTS:
            raise Refusal(E_INVALID, "There are too many break- and watchpoints.")
        self._points.insert(point)
        return b"OK"

    async def _remove(self, rest: bytes) -> bytes:
        point = point_of(rest, self._memory.space)
        self._points.remove(point.kind, point.address, point.length, point.space)
        return b"OK"

    async def _thread(self, rest: bytes) -> bytes:
        if not concerns_us(rest[1:]) or rest[:1] not in (b"g", b"c"):
            raise Refusal(E_INVALID, "There is only thread 1.")
        return b"OK"

    async def _is_alive(self, rest: bytes) -> bytes:
        if not concerns_us(rest):
            raise Refusal(E_INVALID, "There is only thread 1.")
        return b"OK"

    async def _thread_info(self, _rest: bytes) -> bytes:
        return f"vcpu 0 at {format_position(self._timeline.position)}".encode().hex().encode()

    async def _document(self, rest: bytes) -> bytes:
        name, _, span = rest.rpartition(b":")
        if self._documents is None and self._face.document:
            self._documents = {ROOT_DOCUMENT: self._face.document}
        if self._documents is None:
            documents = await self._timeline.target_description()
            self._documents = target.description(self._timeline.view.isa, documents)
        try:
            return _part(self._documents[name.decode("latin-1")], span)
        except KeyError:
            raise Refusal(E_INVALID, "There is no such document.") from None

    async def _memory_map(self, rest: bytes) -> bytes:
        physical = self._memory.space == "physical"
        return _part(target.memory_map(self._timeline.view, physical), rest)

    async def _threads(self, rest: bytes) -> bytes:
        return _part(target.threads(format_position(self._timeline.position)), rest)

    async def _exec_file(self, rest: bytes) -> bytes:
        return _part(self._program.name, rest.partition(b":")[2]) if self._program else b""

    async def _file(self, rest: bytes) -> bytes:
        return self._program.answer(rest) if self._program else b""

    async def _command(self, rest: bytes) -> bytes:
        try:
            line = bytes.fromhex(rest.decode("ascii")).decode(errors="replace")
        except ValueError:
            raise Refusal(E_INVALID, "The command is not in hexadecimal digits.") from None
        position = self._timeline.position
        try:
            self._say(await self._monitor.run(line))
            if self._timeline.position != position:
                await self._memory.get_ready()
                await self._doubt_mode()
        except RetrogradeError as error:
            self._say(f"{error}\n")
        return b"OK"

    async def _host(self, _rest: bytes) -> bytes:
        view = self._timeline.view
        order = target.byte_order(view, await self._timeline.packet())
        return target.host_info(self._face.view.isa, order)

    async def _process(self, _rest: bytes) -> bytes:
        view = self._timeline.view
        order = target.byte_order(view, await self._timeline.packet())
        return target.process_info(self._face.view.isa, order)

    async def _region(self, rest: bytes) -> bytes:
        start, size, mapped = await self._memory.region(hexadecimal(rest))
        return b"start:%x;size:%x;%s" % (start, size, b"permissions:rwx;" if mapped else b"")

    async def _fine(self, _rest: bytes) -> bytes:
        return b"OK"

    async def _refuse_write(self, rest: bytes) -> bytes:
        if rest.endswith(b",0:"):
            return b"OK"  # gdb asks in this way whether X is known
        raise Refusal(E_READ_ONLY, _READ_ONLY)

    async def _leave(self, _rest: bytes) -> bytes:
        self.ended = True
        return b"OK"

    def _error(self, number: int, text: str, request: bytes) -> bytes:
        """Say what is wrong in words where the client can take words."""
        text = visible(text)
        if _LLDB_ERRORS in self._on:
            return b"E%02x;%s" % (number, text.encode().hex().encode())
        # Older gdbs read words only where the answer could be nothing but OK.
        if self._gdb_errors or request[:1] in (b"G", b"P", b"M", b"X", b"Z"):
            return b"E." + text.encode()
        return b"E%02x" % number

    _handlers: Final[tuple[tuple[bytes, Callable[[Session, bytes], Awaitable[bytes]]], ...]] = (
        (b"?", _status),
        (b"g", _registers),
        (b"p", _register),
        (b"m", _memory_hex),
        (b"x", _memory_binary),
        (b"Z", _insert),
        (b"z", _remove),
        (b"H", _thread),
        (b"T", _is_alive),
        (b"D", _leave),
        (b"k", _leave),
        (b"vKill;", _leave),
        (b"G", _refuse_write),
        (b"P", _refuse_write),
        (b"M", _refuse_write),
        (b"X", _refuse_write),
        (b"qSupported", _supported),
        (b"qXfer:features:read:", _document),
        (b"qXfer:memory-map:read::", _memory_map),
        (b"qXfer:threads:read::", _threads),
        (b"qXfer:exec-file:read:", _exec_file),
        (b"vFile:", _file),
        (b"qThreadExtraInfo,", _thread_info),
        (b"qThreadStopInfo", _status),
        (b"qRcmd,", _command),
        (b"qSearch:memory:", _search),
        (b"Qqemu.PhyMemMode:", _physical),
        (b"qqemu.PhyMemMode", _is_physical),
        (b"qHostInfo", _host),
        (b"qProcessInfo", _process),
        (b"qMemoryRegionInfo:", _region),
    )


def _reason(stop: Stop) -> bytes:
    assert stop.reason is not None
    value = stop.log_end or ("" if stop.address is None else f"{stop.address:x}")
    return f"{stop.reason.value}:{value};".encode()


def _part(document: bytes, span: bytes) -> bytes:
    """Return the part of a document that `offset,length` asks for, as qXfer has it."""
    offset, length = pair(span)
    part = document[offset : offset + min(length, PACKET_BYTES // 4)]
    return (b"m" if offset + len(part) < len(document) else b"l") + part
