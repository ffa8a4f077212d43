"""One connection to a gdbstub: packets out, replies in, always in step.

Replies come in the order of the requests, so a queue of receivers is the whole state.
A caller that is cancelled or runs out of time leaves its receiver in the queue, where it
takes the late reply: nothing that happens to a caller can shift the replies of others.

The one packet that answers nothing is a stop reply from QEMU before 8.1, which sends one
whenever the machine stops, also when QMP moved it (gdb_vm_state_change). It is dropped
unless the receiver whose turn it is awaits a stop. So whoever moves the machine must first
hear an answer that followed the last foreign stop: any round trip will do.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from pathlib import Path
from typing import Protocol, Self, cast

from retrograde.errors import QemuDied
from retrograde.wire.rsp import (
    ACK,
    INTERRUPT,
    Decoder,
    Garbled,
    Nack,
    Packet,
    encode,
)
from retrograde.wire.rsp_stop import is_stop


class Receiver(Protocol):
    """Takes the packets that answer one request."""

    @property
    def awaits_stop(self) -> bool:
        """Whether the next packet may be a stop reply."""

    def receive(self, payload: bytes) -> bool:
        """Take the next packet; return True when it was the last one of the answer."""

    def fail(self, error: QemuDied) -> None:
        """Learn that no further packet will come."""


class Answer:
    """Receives one reply, after any number of console output packets ('O' and hex)."""

    def __init__(self, *, awaits_stop: bool = False) -> None:
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.output = bytearray()
        self._awaits_stop = awaits_stop

    @property
    def awaits_stop(self) -> bool:
        """Whether the request is one that a stop reply answers; see Receiver."""
        return self._awaits_stop

    def receive(self, payload: bytes) -> bool:
        """Take a packet; see Receiver."""
        if payload[:1] == b"O" and payload != b"OK":
            self.output += bytes.fromhex(payload[1:].decode("ascii"))
            return False
        self.future.set_result(payload)
        return True

    def fail(self, error: QemuDied) -> None:
        """Pass the error to whoever waits, if anybody still does."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # marks it seen: the waiter may be long gone


class GdbLink(asyncio.Protocol):
    """The transport, its decoder, and the receivers waiting for replies."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._receivers: deque[Receiver] = deque()
        self._transport: asyncio.Transport | None = None
        self._broken: QemuDied | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acknowledging = True
        self._owed = b""

    @classmethod
    async def open(cls, endpoint: str | Path | socket.socket) -> Self:
        """Connect to a Unix socket path, or take over (and later close) a connected socket.

        Raises QemuDied when nothing listens.
        """
        loop = asyncio.get_running_loop()
        try:
            if isinstance(endpoint, socket.socket):
                endpoint.setblocking(False)
                _, link = await loop.create_unix_connection(cls, sock=endpoint)
            else:
                _, link = await loop.create_unix_connection(cls, str(endpoint))
        except OSError as error:
            raise QemuDied(
                f"There is no gdb link at {endpoint} ({error.strerror}).",
                "Check that QEMU runs and was started with -gdb.",
            ) from error
        return link

    def send(self, *payloads: bytes, receiver: Receiver | None = None) -> None:
        """Send requests in one write; `receiver`, if given, joins the queue first.

        Several requests may share a receiver that expects all their replies. Raises
        QemuDied when the link is broken.

        Acknowledgements wait for the next request instead of going out alone: QEMU takes
        any byte but an interrupt that it reads while the guest runs as a reason to stop
        it without a stop reply (gdb_read_byte in gdbstub/gdbstub.c), and each saved write
        is a saved wake-up of its main loop.
        """
        if receiver is not None:
            self._receivers.append(receiver)
        self._write(b"".join(map(encode, payloads)))

    def interrupt(self) -> None:
        """Ask a running target to stop; the stop reply goes to the waiting receiver."""
        self._write(INTERRUPT)

    def stop_acknowledging(self) -> None:
        """Enter no-ack mode, once the stub agreed to it."""
        self._acknowledging = False

    async def close(self) -> None:
        """Close the connection; receivers still waiting fail with QemuDied."""
        if self._transport is not None:
            self._transport.abort()  # nothing on its way out is worth waiting for
            await asyncio.wait({self._closed})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand each packet to the receiver whose turn it is (called by asyncio)."""
        for frame in self._decoder.feed(data):
            if isinstance(frame, Packet):
                self._dispatch(frame.payload)
            elif isinstance(frame, (Nack, Garbled)):
                # On a stream that keeps its bytes these are no noise but a bug at either
                # end, and sending again would only hide it.
                self._break("carries packets that cannot be read")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all receivers (called by asyncio)."""
        self._break("closed" if exc is None else f"broke ({exc})")
        self._closed.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        assert self._transport is not None
        self._transport.write(self._owed + data)
        self._owed = b""

    def _dispatch(self, payload: bytes) -> None:
        if self._acknowledging:
            self._owed = ACK
        if is_stop(payload) and not (self._receivers and self._receivers[0].awaits_stop):
            return
        if not self._receivers:
            self._break("carries a packet nobody asked for")
            return
        try:
            if self._receivers[0].receive(payload):
                self._receivers.popleft()
        except ValueError:
            self._break("carries packets that cannot be read")

    def _break(self, how: str) -> None:
        if self._broken is None:
            self._broken = QemuDied(
                f"The gdb link to QEMU {how}.",
                "Start a new replayer; QEMU's messages, if any, say why it ended.",
            )
        while self._receivers:
            self._receivers.popleft().fail(self._broken)
        if self._transport is not None:
            self._transport.abort()
