"""A gdbstub with QEMU's manners, for tests: no guest, but the same traps.

It holds QEMU 10's line against its clients (gdb_read_byte in gdbstub/gdbstub.c): any byte
but an interrupt that arrives while the guest runs is noted in `offences`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from retrograde.wire.rsp import Ack, Decoder, Interrupt, Packet, encode

SUPPORTED = b"PacketSize=1000;qXfer:features:read+;vContSupported+"
REVERSE = b";ReverseStep+;ReverseContinue+"


class FakeStub(asyncio.Protocol):
    """Answers from `replies` (request to reply); steps count `position` up."""

    def __init__(self, *, replaying: bool = True, no_ack: bool = False) -> None:
        self.replaying = replaying
        self.position = 0
        self.running = False
        self.offences: list[bytes] = []
        self.requests: list[bytes] = []
        self.acks = 0
        self.manual = False
        """Leave a moving guest running until `stop` is called."""
        self.mute = False
        self.delivering = False
        """Every second step takes an interrupt and so stays at its position."""
        self.stops: deque[bytes] = deque()
        """Stop replies for the coming steps, before plain traps."""
        self.replies: dict[bytes, bytes] = {
            b"qSupported": SUPPORTED + (REVERSE if replaying else b""),
            b"QStartNoAckMode": b"OK" if no_ack else b"",
            b"?": b"T05thread:01;",
        }
        self.on_request: Callable[[bytes], None] = lambda _request: None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acknowledging = True
        self._decoder = Decoder()

    async def serve(self) -> socket.socket:
        """Return the client's end of a connection to this stub."""
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=theirs)
        return ours

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if self.running and not isinstance(frame, Interrupt):
                self.offences.append(data)
            elif isinstance(frame, Interrupt):
                if self.running:
                    self.stop(b"T02thread:01;")
            elif isinstance(frame, Ack):
                self.acks += 1
            elif isinstance(frame, Packet):
                self._handle(frame.payload)

    def stop(self, reply: bytes = b"T05thread:01;") -> None:
        self.running = False
        self._send(reply)

    def _handle(self, request: bytes) -> None:
        self.requests.append(request)
        if self._acknowledging:
            self.transport.write(b"+")
        self.on_request(request)
        name = request.partition(b":")[0]
        reply = self.replies.get(request, self.replies.get(name))
        if self.mute:
            return
        if reply is not None:
            self._send(reply)
            self._acknowledging &= (name, reply) != (b"QStartNoAckMode", b"OK")
        elif request in (b"s", b"vCont;c", b"bs", b"bc"):
            self.running = True
            self.position += {b"s": 1, b"bs": -1}.get(request, 0)
            if self.delivering and self.requests.count(b"s") % 2 == 0:
                self.position -= 1
            if not self.manual:
                # Later, as in QEMU: what the client sent along with a step comes before.
                asyncio.get_running_loop().call_soon(self._stop_next)
        elif request == b"g":
            self._send(self.position.to_bytes(8, "little").hex().encode())
        elif request.startswith(b"qRcmd,"):
            known = b"instruction count = %d\r\n" % self.position
            output = known if self.replaying else b"Record/replay is not active\r\n"
            self._send(b"O" + output.hex().encode())
            self._send(b"OK")
        else:
            self._send(b"")

    def _stop_next(self) -> None:
        if self.running:
            self.stop(self.stops.popleft() if self.stops else b"T05thread:01;")

    def _send(self, payload: bytes) -> None:
        self.transport.write(encode(payload))
