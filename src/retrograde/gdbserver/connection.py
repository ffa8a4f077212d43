"""One client's bytes: frames in, acknowledgements, and requests it may interrupt."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from retrograde.gdbserver.requests import is_long
from retrograde.gdbserver.session import PACKET_BYTES, Session
from retrograde.timeline.timeline import Timeline
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

_READ: Final = 1 << 16
_TEXT: Final = 1 << 14
"""Bytes of text in one packet of output."""


class Connection:
    """Talks to one client until it leaves. `run` never raises for what a client does."""

    def __init__(
        self, timeline: Timeline, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._timeline = timeline
        self._reader = reader
        self._writer = writer
        self._session = Session(timeline, self._say)
        self._decoder = Decoder(2 * PACKET_BYTES)
        self._requests: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_haltable = self._halted = False
        self._gone = False
        self._last = b""
        self._answering = b""
        self._interrupt_due = False
        self._reached: int | None = None

    @property
    def is_leaving(self) -> bool:
        """Whether the client has said goodbye or hung up, though we may not have read that yet.

        A debugger that reconnects is as fast as we are.
        """
        fd = self._writer.get_extra_info("socket").fileno()
        if fd < 0 or self._gone or self._session.ended:
            return True
        ends = select.poll()
        ends.register(fd, select.POLLRDHUP)
        return bool(ends.poll(0))

    async def run(self) -> None:
        """Answer requests until the client leaves or the connection breaks."""
        self._task = asyncio.current_task()
        listener = asyncio.create_task(self._listen())
        try:
            while not self._session.ended and (request := await self._next()) is not None:
                await self._answer(request)
        except ConnectionError:
            pass
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            self._session.close()
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()

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
        self._reached = None
        answer = None
        if self._interrupt_due and is_long(request):
            self._interrupt_due = False
        else:
            answer = await self._unless_halted(self._session.answer(request, self._progress))
        if self._gone:
            return
        if answer is None:
            answer = await self._session.interrupted(request, self._reached)
        self._answering = b""
        self._last = encode(answer)
        self._writer.write(self._last)
        await self._writer.drain()

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
        data = text.encode(errors="replace")
        for at in range(0, len(data), _TEXT):
            self._writer.write(encode(b"O" + data[at : at + _TEXT].hex().encode()))

    async def _listen(self) -> None:
        """Read what comes, until the client is gone."""
        try:
            while data := await self._reader.read(_READ):
                for frame in self._decoder.feed(data):
                    self._take(frame)
                await self._writer.drain()  # our answers to a flood must not pile up
        except ConnectionError:
            pass
        finally:
            self._gone = True
            self._news.set()
            self._stop_answering()

    def _take(self, frame: Frame) -> None:
        acknowledging = not self._session.no_ack
        if isinstance(frame, Packet):
            if acknowledging:
                self._writer.write(ACK)
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
            self._writer.write(NACK)
        elif isinstance(frame, Nack) and acknowledging:
            self._writer.write(self._last)
            self._last = b""  # once: a flood of nacks must not be multiplied

    def _stop_answering(self) -> None:
        if self._is_haltable and not self._halted and self._task is not None:
            self._halted = True
            self._task.cancel()
