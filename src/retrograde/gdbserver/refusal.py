"""What a client gets that finds the only place taken: why, in words its user sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from retrograde.wire.rsp import ACK, Decoder, Packet, encode

SECONDS: Final = 5.0
"""A client that is still there is cut off then."""

PACKETS: Final = 16
"""And after so many requests; gdb leaves after three."""

_PACKET_BYTES: Final = 4096


class Refusing(asyncio.Protocol):
    """Answers each request with an error that says why, until the client leaves.

    gdb shows that of `vMustReplyEmpty`, which is to be empty, and gives up (remote.c). For
    the others empty answers are usual, and an error for `qSupported` would be shown too.
    """

    def __init__(self, transport: asyncio.Transport, why: str, gone: Callable[[], None]) -> None:
        """Take over `transport`; `gone` is called when the client is."""
        self._transport = transport
        self._error = encode(b"E." + why.encode())
        self._decoder = Decoder(_PACKET_BYTES)
        self._gone = gone
        self._left = PACKETS
        self._deadline = asyncio.get_running_loop().call_later(SECONDS, transport.abort)
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Answer what came."""
        for frame in self._decoder.feed(data):
            if isinstance(frame, Packet) and not self._transport.is_closing():
                self._left -= 1
                greets = frame.payload.startswith(b"qSupported")
                self._transport.write(ACK + (encode(b"") if greets else self._error))
        if self._left <= 0:
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """Take note that the client is gone."""
        self._deadline.cancel()
        self._gone()
