"""A client of the server for tests: sends packets, reads answers."""

from __future__ import annotations

import asyncio
import contextlib

from retrograde.gdbserver.address import Address
from retrograde.gdbserver.server import GdbServer
from retrograde.wire.rsp import Decoder, Packet, encode

SECONDS = 60
"""No answer takes a hundredth of it; a hang fails here."""


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.said = ""
        self._decoder = Decoder()
        self._packets = []

    @classmethod
    async def connect(cls, path):
        return cls(*await asyncio.open_unix_connection(path))

    async def ask(self, request):
        self.send(request)
        return await self.answer()

    def send(self, request):
        self.writer.write(encode(request.encode() if isinstance(request, str) else request))

    async def answer(self):
        """Return the next packet that is not output; b"" may be an answer, None is the end."""
        async with asyncio.timeout(SECONDS):
            while True:
                while self._packets:
                    payload = self._packets.pop(0)
                    if payload[:1] == b"O" and payload != b"OK":
                        self.said += bytes.fromhex(payload[1:].decode()).decode()
                    else:
                        return payload.decode("latin-1")
                data = await self.reader.read(1 << 16)
                if not data:
                    return None
                frames = self._decoder.feed(data)
                self._packets += [f.payload for f in frames if isinstance(f, Packet)]

    async def monitor(self, line):
        self.said = ""
        assert await self.ask("qRcmd," + line.encode().hex()) == "OK"
        return self.said

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(timeline, folder, reports=None, patience=None):
    """Serve `timeline`; yields the socket's path."""
    path = str(folder / "gdb")
    report = reports.append if reports is not None else lambda _text: None
    async with await GdbServer.start(timeline, Address(path=path), report, patience=patience):
        yield path
