"""Clients that wait long, or no longer."""

import asyncio

import pytest

from retrograde.gdbserver import lifesigns
from retrograde.gdbserver.lifesigns import LifeSigns, sign_for
from tests.gdbserver.client import SECONDS, Client, serving
from tests.gdbserver.faketimeline import FakeTimeline, pc

GDB = "qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+"
LLDB = "qSupported:xmlRegisters=i386;multiprocess+"
EMPTY_OUTPUT = b"$O#4f"


class Held(FakeTimeline):
    """Answers about memory, and searches for writes, only when it is let."""

    def __init__(self, cache):
        super().__init__(cache)
        self.may = asyncio.Event()
        self.asked = asyncio.Event()

    async def read(self, address, count, space="virtual"):
        self.asked.set()
        await self.may.wait()
        return await super().read(address, count, space)

    async def last_write(self, address, count):
        await self.read(address, count)


@pytest.mark.parametrize("request_", [b"g", b"m1000,4", b"p0", b"qXfer:threads:read::0,1000"])
def test_only_who_skips_acks_gets_them(request_):
    assert sign_for(request_, skips_acks=True) == b"+"
    assert sign_for(request_, skips_acks=False) == b""


@pytest.mark.parametrize("skips_acks", [False, True])
def test_output_is_for_monitor_commands_and_nothing_for_who_waits_anyway(skips_acks):
    assert sign_for(b"qRcmd,7768656e", skips_acks=skips_acks) == EMPTY_OUTPUT
    for resumes in (b"bs", b"bc", b"vCont;c", b"vCont;r1000,1010:1", b"s", b"c1234", b"vCont;?"):
        assert sign_for(resumes, skips_acks=skips_acks) == b""


async def test_signs_are_for_one_request_that_takes_long(monkeypatch):
    given = []
    signs = LifeSigns(lambda: given.append(1))
    monkeypatch.setattr(signs, "start", lambda: None)  # the test is the clock
    for _ in range(5):  # many requests, each soon answered
        signs.asked()
        signs._look()
        signs.answered()
        signs._look()
    assert not given
    signs.asked()
    signs._look()
    assert not given
    signs._look()
    signs._look()
    assert len(given) == 2
    signs.answered()
    signs._look()
    assert len(given) == 2


@pytest.mark.parametrize(
    ("request_", "sign", "answer"),
    [
        ("m1000,4", b"+++", b"$00010203#"),
        ("qRcmd," + b"last-write 4096".hex(), EMPTY_OUTPUT * 3, b"$OK#"),
    ],
)
async def test_gdb_is_kept_waiting(tmp_path, monkeypatch, request_, sign, answer):
    monkeypatch.setattr(lifesigns, "SECONDS", 0.001)
    timeline = Held(tmp_path)
    async with asyncio.timeout(SECONDS), serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        await client.ask("QStartNoAckMode")
        await client.ask(GDB)
        client.send(request_)
        assert await client.reader.readexactly(len(sign)) == sign
        timeline.may.set()
        rest = await client.reader.readuntil(answer)
        assert rest.startswith((sign[:1], answer[:1]))
        await client.close()


async def test_lldb_gets_output_only(tmp_path, monkeypatch):
    monkeypatch.setattr(lifesigns, "SECONDS", 0.001)
    timeline = Held(tmp_path)
    looked = five_looks(monkeypatch)
    async with asyncio.timeout(SECONDS), serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        await client.ask("QStartNoAckMode")
        await client.ask(LLDB)
        await client.ask("QThreadSuffixSupported")
        client.send("m1000,4")
        await timeline.asked.wait()
        await looked()
        timeline.may.set()
        assert await client.reader.readuntil(b"#") == b"$00010203#"
        await client.close()


def five_looks(monkeypatch):
    """Return what waits until it was looked five times whether a sign is due."""
    looks = asyncio.Semaphore(0)
    look = LifeSigns._look

    def counted(self):
        look(self)
        looks.release()

    async def five():
        for _ in range(5):
            await looks.acquire()

    monkeypatch.setattr(LifeSigns, "_look", counted)
    return five


async def test_what_gdb_has_given_up_is_not_answered(tmp_path):
    timeline = Held(tmp_path)
    async with asyncio.timeout(SECONDS), serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        await client.ask(GDB)
        client.send("m1000,4")
        await timeline.asked.wait()
        client.send("m1001,4")
        client.send("m1002,4")
        await client.writer.drain()
        timeline.may.set()
        assert await client.answer() == "02030405"
        assert await client.ask("qC") == "QC1"
        await client.close()


async def test_lldb_gets_all_answers_in_order(tmp_path):
    """It asks on to find its place in the conversation."""
    timeline = Held(tmp_path)
    async with asyncio.timeout(SECONDS), serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        await client.ask(LLDB)
        client.send("m1000,4")
        await timeline.asked.wait()
        client.send("qC")
        timeline.may.set()
        assert await client.answer() == "00010203"
        assert await client.answer() == "QC1"
        await client.close()


class Noting(FakeTimeline):
    """Keeps (position, address) of all reads."""

    def __init__(self, cache):
        super().__init__(cache)
        self.reads = []

    async def read(self, address, count, space="virtual"):
        self.reads.append((self.position, address))
        return await super().read(address, count, space)


@pytest.mark.parametrize("move", ["s", "bs", "c", "bc", "seek"])
async def test_memory_is_at_hand_before_the_stop_is_told(tmp_path, move):
    timeline = Noting(tmp_path)
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        await client.ask(f"Z0,{pc(2000):x},1")
        for _ in range(2):
            await timeline.seek(2100)
            await client.ask("m1000,4")
            timeline.reads.clear()
            await (client.monitor("seek 50%") if move == "seek" else client.ask(move))
            assert timeline.position != 2100
            assert (timeline.position, pc(timeline.position)) in timeline.reads
        # Who looked at no memory there will not look here.
        await timeline.seek(2100)
        timeline.reads.clear()
        await (client.monitor("seek 50%") if move == "seek" else client.ask(move))
        assert timeline.reads == []
        await client.close()
