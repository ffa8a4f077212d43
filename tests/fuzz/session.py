"""Fuzz target: a whole session with the gdb server, over a timeline in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from retrograde.gdbserver.connection import Connection
from retrograde.wire.rsp import Ack, Decoder, Garbled, Nack, Packet, encode
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target
from tests.gdbserver.faketimeline import END, FakeTimeline

MOST = 512

SEEDS = (
    b"qSupported:swbreak+;hwbreak+;error-message+\nQStartNoAckMode\n?\ng\np10\nqC\nvCont?",
    b"m1000,10\nx1000,0\nx1000,10\nm1fff0,20\nqSearch:memory:0;1000;abc\nG00\nX0,0:",
    b"Z0,1010,1;X3,260027\nvCont;c\nbc\nz0,1010,1\nZ2,8008,8\nc\nbs\ns\nZ4,8008,8\nbc",
    b"vCont;s:1\nvCont;r1000,1010:1\nvCont;t\nHg0\nT1\nqRcmd,7365656b20353025\nqRcmd,77",
    b"qXfer:features:read:target.xml:0,fff\nqXfer:memory-map:read::0,fff\nqXfer:threads:read::0,9",
    b"QThreadSuffixSupported\nQListThreadsInStopReply\nQEnableErrorStrings\nqHostInfo\n?\nqM",
    b"Qqemu.PhyMemMode:1\nqqemu.PhyMemMode\nqMemoryRegionInfo:1ffff\nvFile:setfs:0\nqThreadStopInfo1",
    b"c\n!\x03\nbc\n!\x03\x03\n!$#00\n!$c#6\n!}-+%Stop:T05#aa\n!$m0,4*~#00\nD",
)
"""Requests by lines, which are sent as packets; after `!` as they are."""


def open_target(place: Path) -> Callable[[bytes], None]:
    return lambda data: asyncio.run(converse(data, place))


async def converse(data: bytes, cache: Path) -> None:
    """Hold a session with the server that consists of `data`, and look at all it says."""
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: failures.append(context))
    timeline, running = FakeTimeline(cache), []
    theirs, ours = socket.socketpair()
    await loop.connect_accepted_socket(
        lambda: Connection(timeline, lambda one: running.append(loop.create_task(one.run()))),
        theirs,
    )
    reader, writer = await asyncio.open_connection(sock=ours)
    saying = loop.create_task(all_of(reader))
    requests = 0
    for line in data.split(b"\n"):
        raw = line.startswith(b"!")
        requests += len(line) if raw else 1
        writer.write(line[1:] if raw else encode(line))
        await asyncio.sleep(0)
    if not writer.is_closing():
        writer.write_eof()
    said = Decoder(1 << 20).feed(await saying)
    await running[0]
    writer.close()
    answers = [one.payload for one in said if isinstance(one, Packet)]
    assert not any(isinstance(one, Garbled) for one in said), said
    assert all(isinstance(one, Packet | Ack | Nack) for one in said), said
    assert sum(one[:1] != b"O" or one == b"OK" for one in answers) <= requests
    assert 0 <= timeline.position <= END
    assert failures == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Return all that is said until the end, which is abrupt after a goodbye talked over."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            said += data
    return said
