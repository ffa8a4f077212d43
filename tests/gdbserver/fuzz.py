"""Fuzz targets: the packet decoder, and a whole session of the server, from bytes alone.

    ./dev fuzz [SECONDS]

lets atheris look for bytes that break them, guided by what code they reach, and keeps what
it found in build/fuzz. The test suite gives them SEEDS and what hypothesis thinks of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    import atheris

    # Only what is imported in here tells it what code was reached.
    with atheris.instrument_imports(include=["retrograde.wire", "retrograde.gdbserver"]):
        import retrograde.gdbserver.connection  # noqa: F401

from retrograde.gdbserver.connection import Connection
from retrograde.wire.rsp import Ack, Decoder, Garbled, Nack, Packet, encode
from tests.gdbserver.faketimeline import END, FakeTimeline

LIMIT = 4096

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


def decode(data: bytes) -> None:
    """Decode bytes whole and in chunks; encode what came out and decode that."""
    size = 1 + data[0] if data else 1
    whole, parts = Decoder(LIMIT), Decoder(LIMIT)
    frames = whole.feed(data)
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    assert [frame for chunk in chunks for frame in parts.feed(chunk)] == frames
    assert whole.held == parts.held <= LIMIT + 8
    for frame in frames:
        if isinstance(frame, Packet):
            assert Decoder(2 * LIMIT).feed(encode(frame.payload)) == [frame]


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
    assert not timeline.stops
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


def main() -> None:
    """Fuzz until something breaks, or for so many seconds."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    found = Path("build/fuzz/corpus")
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS):
        (found / f"seed{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as cache, asyncio.Runner() as runner:

        def one_input(data: bytes) -> None:
            decode(data)
            runner.run(converse(data, Path(cache)))

        options = [f"-max_total_time={seconds}", "-timeout=20", "-artifact_prefix=build/fuzz/"]
        atheris.Setup([sys.argv[0], *options, os.fspath(found)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
