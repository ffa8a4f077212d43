"""Clients that misbehave: garbage, floods, leaving in the middle, two at once."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograde.errors import UsageError
from retrograde.gdbserver import connection
from retrograde.gdbserver.address import Address
from retrograde.gdbserver.refusal import PACKETS
from retrograde.gdbserver.server import REFUSED_AT_ONCE, GdbServer
from retrograde.recording.console import ConsoleMap
from retrograde.wire.rsp import encode
from tests.gdbserver.client import SECONDS, Client, serving
from tests.gdbserver.faketimeline import END, FakeTimeline, pc


class Endless(FakeTimeline):
    """A timeline whose runs find nothing and never end; `running` is the first."""

    def __init__(self, cache):
        super().__init__(cache)
        self.running = asyncio.get_running_loop().create_future()

    async def run(self, _stops, progress=None):
        if not self.running.done():
            self.running.set_result(asyncio.current_task())
        progress(1234)
        await asyncio.Event().wait()

    run_back = run


async def test_interrupt_while_running_either_way(tmp_path):
    timeline = Endless(tmp_path)
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        for request in ("c", "bc", "vCont;c"):
            await timeline.seek(2000)
            client.send(request)
            client.writer.write(b"\x03")
            assert (await client.answer()).startswith("T02thread:1;")
        # One too many is ignored: the next request gets its own answer.
        client.writer.write(b"\x03")
        assert await client.ask("qC") == "QC1"
        await client.close()


async def test_an_interrupted_run_keeps_what_it_reached(tmp_path):
    timeline = Endless(tmp_path)
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        client.send("c")
        await timeline.running
        client.writer.write(b"\x03")
        assert (await client.answer()).startswith("T02")
        assert timeline.position == 1234
        await client.close()


async def test_a_client_that_vanishes_ends_its_run(tmp_path):
    timeline = Endless(tmp_path)
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        client.send("c")
        run = await timeline.running
        client.writer.transport.abort()
        async with asyncio.timeout(SECONDS):
            await asyncio.wait([run])
        again = await Client.connect(path)
        assert await again.ask("qC") == "QC1"
        await again.close()


async def test_the_guests_console_does_not_command_gdbs_terminal(tmp_path):
    timeline = FakeTimeline(tmp_path)
    written = "\x1b]0;title\x07 \u202egnp\t1\nnext\n".encode()
    timeline.recording.console = ConsoleMap(written, np.zeros(len(written), np.uint64))
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        assert await client.monitor("console") == "\\x1b]0;title\\x07 \\u202egnp\t1\nnext\n"
        await client.close()


async def test_the_next_client_finds_the_position_but_no_breakpoints(tmp_path):
    timeline = FakeTimeline(tmp_path)
    async with serving(timeline, tmp_path) as path:
        first = await Client.connect(path)
        await first.ask(f"Z0,{pc(50):x},1")
        await first.ask("c")
        stood = timeline.position
        assert timeline.position < END
        assert await first.ask("D") == "OK"
        assert await first.answer() is None
        await first.close()
        second = await Client.connect(path)
        assert (await second.monitor("when")).startswith(f"at {stood} ")
        assert "replaylog:end" in await second.ask("c")
        await second.close()


async def test_a_second_client_is_sent_away(tmp_path):
    reports = []
    async with serving(FakeTimeline(tmp_path), tmp_path, reports) as path:
        first = await Client.connect(path)
        assert await first.ask("qC") == "QC1"
        for _ in range(3):
            second = await Client.connect(path)
            assert await second.ask("qSupported:swbreak+") == ""
            assert (await second.ask("vMustReplyEmpty")).startswith("E.Another debugger is")
            await second.close()
        assert len(reports) == 1
        assert await first.ask("qC") == "QC1"
        await first.close()
        third = await Client.connect(path)
        assert await third.ask("qC") == "QC1"
        fourth = await Client.connect(path)
        assert await third.ask("qC") == "QC1"
        assert len(reports) == 2
        await fourth.close()
        await third.close()


async def test_who_is_sent_away_does_not_stay(tmp_path):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        first = await Client.connect(path)
        assert await first.ask("qC") == "QC1"
        second = await Client.connect(path)
        with contextlib.suppress(ConnectionError):
            for _ in range(PACKETS):
                assert (await second.ask("qC") or "E.").startswith("E.")
            assert await second.answer() is None
        await second.close()
        assert await first.ask("qC") == "QC1"
        await first.close()


async def test_an_idle_client_gives_way(tmp_path):
    reports = []
    async with serving(FakeTimeline(tmp_path), tmp_path, reports, patience=0.0) as path:
        clients = []
        for _ in range(20):
            clients.append(await Client.connect(path))
            assert await clients[-1].ask("qC") == "QC1"
        for idle in clients[:-1]:
            with contextlib.suppress(ConnectionError):
                assert await idle.answer() is None
            await idle.close()
        assert len(reports) == 19
        await clients[-1].close()


async def test_who_waits_for_an_answer_is_not_idle(tmp_path):
    timeline = Endless(tmp_path)
    async with serving(timeline, tmp_path, patience=0.0) as path:
        client = await Client.connect(path)
        client.send("c")
        await timeline.running
        other = await Client.connect(path)
        assert (await other.ask("qC")).startswith("E.Another debugger")
        client.writer.write(b"\x03")
        assert (await client.answer()).startswith("T02")
        await client.close()
        await other.close()


async def test_who_never_asks_anything_is_no_client(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "GREETING", 0.0)
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        silent = await Client.connect(path)
        silent.writer.write(b"$qC#")  # nor is half a request one
        client = await Client.connect(path)
        assert await client.ask("qC") == "QC1"
        with contextlib.suppress(ConnectionError):
            assert await silent.answer() is None
        # Who did ask stays.
        other = await Client.connect(path)
        assert (await other.ask("qC")).startswith("E.Another debugger")
        assert await client.ask("qC") == "QC1"
        for one in (silent, client, other):
            await one.close()


async def test_a_crowd_is_not_kept_waiting(tmp_path):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        first = await Client.connect(path)
        assert await first.ask("qC") == "QC1"
        crowd = [await Client.connect(path) for _ in range(2 * REFUSED_AT_ONCE)]
        for told in crowd[:REFUSED_AT_ONCE]:
            assert (await told.ask("qC")).startswith("E.Another debugger")
        for cut_off in crowd[REFUSED_AT_ONCE:]:
            with contextlib.suppress(ConnectionError):
                assert await cut_off.answer() is None
        for one in crowd:
            await one.close()
        while True:  # those that left are noticed in their own time
            last = await Client.connect(path)
            with contextlib.suppress(ConnectionError):
                if await last.ask("qC") is not None:
                    break
            await last.close()
        await last.close()
        assert await first.ask("qC") == "QC1"
        await first.close()


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_client_may_reconnect_at_once(tmp_path, goodbye):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        for _ in range(50):
            client = await Client.connect(path)
            assert await client.ask("qC") == "QC1"
            if goodbye:
                assert await client.ask("D") == "OK"
            client.writer.transport.abort()
        # With answers under way, too: nobody has read that the client left.
        for _ in range(50):
            client = await Client.connect(path)
            client.send("qC")
            client.writer.close()
        client = await Client.connect(path)
        assert await client.ask("qC") == "QC1"
        await client.close()


async def test_the_server_ends_though_a_client_reads_nothing(tmp_path):
    enough = asyncio.Event()

    class Counting(FakeTimeline):
        reads = 0

        async def read(self, address, count, space="virtual"):
            self.reads += 1
            if self.reads == 32:  # 2 MB in all, more than a socket holds
                enough.set()
            return bytes(0x8000)

    async with asyncio.timeout(SECONDS), serving(Counting(tmp_path), tmp_path) as path:
        client = await Client.connect(path)
        assert await client.ask("QStartNoAckMode") == "OK"
        client.writer.transport.pause_reading()
        for _ in range(32):
            client.send("m0,8000")
        await enough.wait()
    client.writer.transport.abort()


async def test_one_of_many_is_next(tmp_path):
    reports = []
    async with serving(FakeTimeline(tmp_path), tmp_path, reports) as path:
        first = await Client.connect(path)
        assert await first.ask("D") == "OK"
        second, third = await Client.connect(path), await Client.connect(path)
        assert await second.ask("qC") == "QC1"
        assert (await third.ask("qC")).startswith("E.Another debugger")
        assert len(reports) == 1
        for client in (first, second, third):
            await client.close()


async def test_wrong_checksums_are_asked_for_again(tmp_path):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        client = await Client.connect(path)
        client.writer.write(b"$qC#00")
        assert await client.reader.readexactly(1) == b"-"
        client.writer.write(encode(b"qC"))
        assert await client.reader.readexactly(8) == b"+$QC1#c5"
        client.writer.write(b"-")
        assert await client.reader.readexactly(7) == b"$QC1#c5"
        await client.close()


async def test_oversized_packets_are_refused(tmp_path):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        client = await Client.connect(path)
        client.writer.write(b"$" + b"x" * (3 << 20) + b"#00")
        assert await client.reader.readexactly(1) == b"-"
        assert await client.ask("qC") == "QC1"
        await client.close()


async def test_a_flood_is_neither_kept_nor_multiplied(tmp_path):
    async with serving(FakeTimeline(tmp_path), tmp_path) as path:
        client = await Client.connect(path)
        await client.ask("g")
        for junk in (b"-" * 100_000, b"$#01" * 20_000, encode(b"m1000,1000") * 2_000):
            client.writer.write(junk)
        client.writer.write_eof()
        received = 0
        async with asyncio.timeout(SECONDS):
            while data := await client.reader.read(1 << 20):
                received += len(data)
        assert received < 20 << 20
        await client.close()


REQUESTS = st.one_of(
    st.sampled_from(
        [
            *(b"?", b"g", b"p0", b"m1000,10", b"x1000,10", b"c", b"s", b"bs", b"bc", b"vCont?"),
            *(b"vCont;c", b"vCont;s:1", b"vCont;r1000,1010:1", b"vCont;t", b"QStartNoAckMode"),
            *(b"Z0,1010,1", b"z0,1010,1", b"Z2,8008,8", b"z2,8008,8", b"Z0,1010,1;X3,260027"),
            *(b"qSupported:swbreak+", b"qRcmd,7768656e", b"qRcmd,7365656b20353025", b"Hg0"),
            *(b"qSearch:memory:0;1000;abc", b"QEnableErrorStrings", b"qHostInfo", b"T1"),
        ]
    ),
    st.binary(max_size=30),
    st.tuples(
        st.sampled_from([b"m", b"x", b"Z0,", b"Z2,", b"vCont;", b"qRcmd,", b"qSearch:memory:"]),
        st.text("0123456789abcdef,;:-rst", max_size=24).map(str.encode),
    ).map(b"".join),
)
CHUNKS = st.one_of(
    REQUESTS.map(encode),
    REQUESTS.map(encode).flatmap(lambda p: st.integers(0, len(p)).map(lambda n: p[:n])),
    st.binary(max_size=40),
    st.sampled_from([b"\x03", b"+", b"-", b"$", b"#", b"$#", b"}"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(CHUNKS, max_size=25), st.booleans())
def test_whatever_is_sent_the_next_client_is_served(chunks, abruptly):
    async def check(folder):
        timeline = FakeTimeline(folder / "cache")
        failures = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        async with serving(timeline, folder) as path:
            client = await Client.connect(path)
            for chunk in chunks:
                client.writer.write(chunk)
                await asyncio.sleep(0)
            if abruptly:
                client.writer.transport.abort()
            await client.close()
            again = await Client.connect(path)
            assert await again.ask("qC") == "QC1"
            assert 0 <= timeline.position <= END
            await again.close()
        assert failures == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


async def test_sockets_are_private_and_do_not_stay(tmp_path):
    path = tmp_path / "gdb"
    async with serving(FakeTimeline(tmp_path), tmp_path):
        assert path.stat().st_mode & 0o077 == 0
        with pytest.raises(UsageError):
            await GdbServer.start(FakeTimeline(), Address(path=str(path)))
    assert not path.exists()


async def test_a_file_in_the_way_is_kept(tmp_path):
    path = tmp_path / "gdb"
    path.write_text("mine")
    with pytest.raises(UsageError):
        await GdbServer.start(FakeTimeline(), Address(path=str(path)))
    assert path.read_text() == "mine"


async def test_tcp_on_any_port(tmp_path):
    async with await GdbServer.start(
        FakeTimeline(tmp_path), Address.parse("localhost:0")
    ) as server:
        client = Client(*await asyncio.open_connection("127.0.0.1", server.address.port))
        assert await client.ask("qC") == "QC1"
        await client.close()
