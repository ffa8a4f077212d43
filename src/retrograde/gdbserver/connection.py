"""One client's bytes: frames in, acknowledgements, and requests it may interrupt."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from retrograde.gdbserver.lifesigns import LifeSigns, sign_for
from retrograde.gdbserver.mode import ModeChoice
from retrograde.gdbserver.refusal import Refusing
from retrograde.gdbserver.requests import is_long
from retrograde.gdbserver.session import PACKET_BYTES, Session
from retrograde.timeline.timeline import Timeline
from retrograde.visible import visible_lines
from retrograde.wire.rsp import (
    ACK,
    NACK,
    Decoder,
    Frame,
    Garbled,
    Interrupt,
    Nack,
    Packet,
    encode,
)

WAITING: Final = 64
"""Requests kept while one is being answered. No debugger sends a second; the rest of a
flood is read, so that a vanished client is noticed, and dropped."""

GREETING: Final = 10.0
"""Seconds. A client that has asked nothing by then gives way to the next."""

KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}
"""A client whose machine or network went away without a word is noticed in two minutes."""

LINGER: Final = 100e-6
"""Seconds. gdb 13 asks on after some 50 microseconds."""

_TEXT: Final = 1 << 14
"""Bytes of text in one packet of output."""


class Connection(asyncio.Protocol):
    """Talks to one client until it leaves. `run` never raises for what a client does.

    A protocol and not a pair of streams: gdb sends thousands of small packets for one
    command, and each is answered two turns of the event loop sooner.
    """

    def __init__(
        self,
        timeline: Timeline,
        accept: Callable[[Connection], None],
        mode: ModeChoice | None = None,
    ) -> None:
        """`accept` is called when the client is there: it has `run` run, or aborts."""
        self._timeline = timeline
        self._accept = accept
        self._transport: asyncio.Transport
        self._lost = asyncio.get_running_loop().create_future()
        self._session = Session(timeline, self._say, mode or ModeChoice())
        self._decoder = Decoder(2 * PACKET_BYTES)
        self._requests: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_haltable = self._halted = False
        self._gone = False
        self._ready = select.poll()
        self._last = b""
        self._answering = b""
        self._given_up = False
        self._signs = LifeSigns(self._give_sign)
        self._interrupt_due = False
        self._reached: int | None = None
        self._heard = asyncio.get_running_loop().time()
        self._has_asked = False

    def gives_way(self, patience: float | None) -> bool:
        """Whether another may have the place: one that asks nothing does not need it.

        That is for `patience` seconds, None for ever; less for who has never asked anything.
        """
        limit = patience if self._has_asked else GREETING
        if limit is None or self._answering or self._requests:
            return False
        return asyncio.get_running_loop().time() - self._heard >= limit

    @property
    def is_leaving(self) -> bool:
        """Whether the client has said goodbye or hung up, though we may not have read that yet.

        A debugger that reconnects is as fast as we are.
        """
        fd = self._transport.get_extra_info("socket").fileno()
        if fd < 0 or self._gone or self._session.ended:
            return True
        ends = select.poll()
        ends.register(fd, select.POLLRDHUP)
        return bool(ends.poll(0))

    async def run(self) -> None:
        """Answer requests until the client leaves or the connection breaks."""
        self._task = asyncio.current_task()
        self._signs.start()
        try:
            while not self._session.ended and (request := await self._next()) is not None:
                await self._answer(request)
        except asyncio.CancelledError:
            self.abort()  # a client that reads no more would not let us close
            raise
        finally:
            self._signs.stop()
            self._session.close()
            self._transport.close()
            await self._lost

    def abort(self) -> None:
        """Send the client away at once."""
        self._transport.abort()

    def refuse(self, why: str, gone: Callable[[], None]) -> None:
        """Have the client told why it is not served, without `run`; calls `gone` when it left."""
        Refusing(self._transport, why, gone)

    # -- what the event loop calls -----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        link = transport.get_extra_info("socket")
        self._ready.register(link.fileno(), select.POLLIN)
        if link.family != socket.AF_UNIX:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                link.setsockopt(socket.IPPROTO_TCP, option, value)
        self._accept(self)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        for frame in self._decoder.feed(data):
            self._take(frame)

    def eof_received(self) -> None:
        """Take note that the client says no more; the transport closes itself."""
        self._leave()

    def connection_lost(self, _error: Exception | None) -> None:
        """Take note that the client is gone."""
        self._leave()
        self._lost.set_result(None)

    def pause_writing(self) -> None:
        """Read no more from a client that does not read: our answers must not pile up."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # ----------------------------------------------------------------------------------

    async def _next(self) -> bytes | None:
        """Return the next request; None when the client is gone."""
        while not self._requests:
            if self._gone:
                return None
            self._news.clear()
            await self._news.wait()
        return self._requests.popleft()

    async def _answer(self, request: bytes) -> None:
        self._answering = request
        self._given_up = False
        self._signs.asked()
        try:
            answer = await self._answer_to(request)
            await self._hear()
        finally:
            self._signs.answered()
            self._answering = b""
        if self._gone or self._given_up:
            return
        self._last = encode(answer)
        self._write(self._last)
        self._linger()

    async def _answer_to(self, request: bytes) -> bytes:
        self._reached = None
        answer = None
        if self._interrupt_due and is_long(request):
            self._interrupt_due = False
        else:
            answer = await self._unless_halted(self._session.answer(request, self._progress))
        if answer is None and not self._gone:
            answer = await self._session.interrupted(request, self._reached)
        return answer or b""

    async def _hear(self) -> None:
        """Take in what has come since the request: see `_give_up`."""
        if self._ready.poll(0):
            # The loop looks at its sockets between the first turn and the second.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _give_up(self) -> None:
        """Take note that a client asks on: it will not take an answer to what it asked before.

        gdb asks one thing at a time. When it does not wait any longer (this machine slept,
        say), it takes the next answer for the one to its newest question.
        """
        if self._session.asks_one_by_one:
            self._requests.clear()
            self._interrupt_due = False
            self._given_up = True

    def _give_sign(self) -> None:
        """Let the client know that its answer is being worked at."""
        if not self._transport.get_write_buffer_size():
            skips_acks = self._session.asks_one_by_one
            self._write(sign_for(self._answering, skips_acks=skips_acks))

    def _linger(self) -> None:
        """Look for the next request for a moment, awake.

        Being woken takes longer than a debugger takes to ask on: its `reverse-next` is
        some thousand requests, each after the answer to the last.
        """
        until = time.perf_counter() + LINGER
        while not self._ready.poll(0) and time.perf_counter() < until:
            pass

    async def _unless_halted(self, work: Coroutine[Any, Any, bytes]) -> bytes | None:
        """Return what `work` does; None when the client interrupted it or went away.

        Cancels ourselves and takes that back, as asyncio.timeout does: a task for each
        request would take longer than most requests do.
        """
        assert self._task is not None
        self._is_haltable = True
        try:
            return await work
        except asyncio.CancelledError:
            if not self._halted or self._task.cancelling() > 1:
                raise
            return None
        finally:
            if self._halted:
                self._task.uncancel()
            self._is_haltable = self._halted = False

    def _progress(self, position: int) -> None:
        self._reached = position

    def _say(self, text: str) -> None:
        """Show text to the client's user, as far as it can be shown now: in an O packet."""
        data = visible_lines(text).encode()
        for at in range(0, len(data), _TEXT):
            self._write(encode(b"O" + data[at : at + _TEXT].hex().encode()))

    def _write(self, data: bytes) -> None:
        """Send, unless the connection broke: asyncio would complain of it on our stderr."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def _leave(self) -> None:
        self._gone = True
        self._news.set()
        self._stop_answering()

    def _take(self, frame: Frame) -> None:
        acknowledging = not self._session.no_ack
        if isinstance(frame, Packet):
            self._has_asked = True
            self._heard = asyncio.get_running_loop().time()
            if acknowledging:
                self._write(ACK)
            self._give_up()
            if len(self._requests) < WAITING:
                self._requests.append(frame.payload)
                self._news.set()
        elif isinstance(frame, Interrupt):
            # A stub that is not running ignores it: the stop reply is on its way.
            if is_long(self._answering):
                self._stop_answering()
            elif any(map(is_long, self._requests)):
                self._interrupt_due = True
        elif isinstance(frame, Garbled) and acknowledging:
            self._write(NACK)
        elif isinstance(frame, Nack) and acknowledging:
            self._write(self._last)
            self._last = b""  # once: a flood of nacks must not be multiplied

    def _stop_answering(self) -> None:
        if self._is_haltable and not self._halted and self._task is not None:
            self._halted = True
            self._task.cancel()
