"""What is asked and answered, over a socket, on a timeline of arithmetic."""

import random

import pytest

from tests.gdbserver.client import Client, serving
from tests.gdbserver.faketimeline import END, MAPPED, FakeTimeline, pc, stored


@pytest.fixture
async def talk(tmp_path):
    """(client, timeline), no acknowledgements, all features."""
    timeline = FakeTimeline(tmp_path / "cache")
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        assert await client.ask("QStartNoAckMode") == "OK"
        await client.ask("qSupported:swbreak+;hwbreak+;vContSupported+")
        yield client, timeline
        await client.close()


async def test_features(talk):
    client, _ = talk
    features = (await client.ask("qSupported:swbreak+;hwbreak+")).split(";")
    assert {"ReverseStep+", "ReverseContinue+", "ConditionalBreakpoints+"} <= set(features)
    assert {"swbreak+", "hwbreak+", "qXfer:features:read+", "QStartNoAckMode+"} <= set(features)
    assert await client.ask("vMustReplyEmpty") == ""
    assert await client.ask("qXfer:auxv:read::0,100") == ""
    assert await client.ask("qXfer:features:read:target.xml:0,100") == "l<target/>"
    assert (await client.ask("qXfer:features:read:other.xml:0,100")).startswith("E")
    assert 'name="vcpu 0"' in await client.ask("qXfer:threads:read::0,1000")


async def test_steps_both_ways_and_both_ends(talk):
    client, timeline = talk
    assert (await client.ask("bs")).startswith("T05replaylog:begin;thread:1;")
    reply = await client.ask("vCont;s:1")
    assert reply.startswith("T05thread:1;")
    assert pc(1).to_bytes(8, "little").hex() in reply
    assert (await client.ask("bs")).startswith("T05thread:1;")
    assert timeline.position == 0
    await timeline.seek(END)
    assert (await client.ask("s")).startswith("T05replaylog:end;")
    assert (await client.ask("c")).startswith("T05replaylog:end;")


async def test_registers_and_memory(talk):
    client, timeline = talk
    await timeline.seek(9)
    packet = await client.ask("g")
    assert packet.startswith((63).to_bytes(8, "little").hex())
    assert await client.ask("p0") == packet[:16]
    assert (await client.ask("p63")).startswith("E")
    assert await client.ask("m1000,4") == "00010203"
    assert await client.ask("x1000,4") == "b\x00\x01\x02\x03"
    assert len(await client.ask(f"m{MAPPED - 4:x},10")) == 8
    assert await client.ask(f"m{MAPPED:x},10") == "E0e"
    assert await client.ask("mffffffffffffffff,10") == "E0e"
    found = await client.ask(b"qSearch:memory:1000;1000;" + bytes((0xFE, 0xFF, 0x00)))
    assert found == "1,10fe"
    assert await client.ask(b"qSearch:memory:1000;80;" + bytes((0xFE, 0xFF, 0x00))) == "0"


async def test_an_old_lldb_gets_bare_bytes(talk):
    client, _ = talk
    assert await client.ask("x0,0") == "OK"
    assert await client.ask("x1000,4") == "\x00\x01\x02\x03"


@pytest.mark.parametrize("request_", ["G00", "P0=1", "M1000,1:00", "X1000,1:0"])
async def test_the_past_is_read_only(talk, request_):
    client, _ = talk
    assert "read-only" in await client.ask(request_)
    assert await client.ask("X1000,0:") == "OK"
    assert (await client.ask("c1234")).startswith("E")


async def test_a_breakpoint_stops_at_its_pc_both_ways(talk):
    client, timeline = talk
    await timeline.seek(1000)
    where = next(p for p in range(1000, END) if pc(p) == pc(1100))
    assert await client.ask(f"Z0,{pc(where):x},1") == "OK"
    assert (await client.ask("vCont;c")).startswith("T05swbreak:;")
    assert timeline.position == where
    # gdb takes it out to step off it; one left in counts as already told.
    await timeline.seek(where + 1)
    assert pc(where + 1) != pc(where)
    assert (await client.ask("bc")).startswith("T05swbreak:;")
    assert timeline.position == where
    assert await client.ask(f"z0,{pc(where):x},1") == "OK"
    assert (await client.ask("bc")).startswith("T05replaylog:begin;")


async def test_a_breakpoint_put_where_it_stands_counts(talk):
    client, timeline = talk
    await timeline.seek(77)
    assert await client.ask(f"Z1,{pc(77):x},1") == "OK"
    assert (await client.ask("c")).startswith("T05hwbreak:;")
    assert timeline.position == 77
    assert (await client.ask("c")).startswith("T05")
    assert timeline.position > 77


async def test_a_watchpoint_stops_after_the_store_forward_and_before_it_backward(talk):
    client, timeline = talk
    await timeline.seek(100)
    assert await client.ask(f"Z2,{stored(130):x},4") == "OK"
    assert (await client.ask("c")).startswith(f"T05watch:{stored(130):x};")
    assert timeline.position == 131
    assert (await client.ask("bc")).startswith(f"T05watch:{stored(130):x};")
    assert timeline.position == 130
    assert (await client.ask("s")).startswith("T05watch:")
    assert (await client.ask("s")).startswith("T05thread:")
    assert (await client.ask("bs")).startswith("T05thread:")
    assert (await client.ask("bs")).startswith("T05watch:")
    assert timeline.position == 130


async def test_where_watchpoints_trap_before_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr("retrograde.gdbserver.motion.TRAP_BEFORE", {"x86_64"})
    timeline = FakeTimeline(tmp_path)
    async with serving(timeline, tmp_path) as path:
        client = await Client.connect(path)
        await timeline.seek(100)
        watch = f"2,{stored(130):x},4"
        assert await client.ask("Z" + watch) == "OK"
        assert (await client.ask("c")).startswith("T05watch:")
        assert timeline.position == 130
        # As gdb does: out, one step, in again.
        assert await client.ask("z" + watch) == "OK"
        await client.ask("s")
        assert await client.ask("Z" + watch) == "OK"
        assert timeline.position == 131
        await timeline.seek(140)
        assert (await client.ask("bc")).startswith("T05watch:")
        assert timeline.position == 131
        await client.close()


# rax == 7 * 2001, which the probe checks, and rax % 14007 == 0, which it cannot.
@pytest.mark.parametrize("condition", ["260000 2336b7 13 27", "260000 2336b7 08 0e 27"])
async def test_conditions_are_evaluated_here(talk, condition):
    client, timeline = talk
    code = bytes.fromhex(condition)
    assert await client.ask(f"Z0,{pc(2001):x},1;X{len(code):x},{code.hex()}") == "OK"
    await timeline.seek(1)
    assert (await client.ask("c")).startswith("T05swbreak:;")
    assert timeline.position == 2001
    await timeline.seek(3900)
    assert (await client.ask("bc")).startswith("T05swbreak:;")
    assert timeline.position == 2001


async def test_range_stepping_stops_outside_and_at_breakpoints(talk):
    client, timeline = talk
    await timeline.seek(300)
    assert (await client.ask("vCont;r1000,10d3:1;c")).startswith("T05replaylog:end;")
    await timeline.seek(300)
    stop = next(p for p in range(301, END) if pc(p) < 0x1008)
    assert (await client.ask("vCont;r1008,10d3:1")).startswith("T05thread:")
    assert timeline.position == stop
    await timeline.seek(300)
    assert await client.ask(f"Z0,{pc(305):x},1") == "OK"
    assert (await client.ask("vCont;r1000,10d3:1")).startswith("T05swbreak:;")
    assert pc(timeline.position) == pc(305)


async def test_random_moves_agree_with_brute_force(talk):
    client, timeline = talk
    rng = random.Random(5)
    for _ in range(300):
        start = rng.randrange(END + 1)
        await timeline.seek(start)
        place = pc(rng.randrange(END)) if rng.random() < 0.8 else 0x5000
        request, moved = rng.choice(["c", "bc"]), None
        await client.ask(f"Z0,{place:x},1")
        span = range(start, END) if request == "c" else reversed(range(start))
        moved = next((p for p in span if pc(p) == place), END if request == "c" else 0)
        reply = await client.ask(request)
        assert timeline.position == moved, (start, place, request, reply)
        await client.ask(f"z0,{place:x},1")


async def test_monitor(talk):
    client, timeline = talk
    assert await client.monitor("when") == "at 0 of 5_000\n"
    assert await client.monitor("seek 50%") == "at 2_500 of 5_000\n"
    assert await client.monitor("bookmark panic") == "panic is 2_500\n"
    assert await client.monitor("end") == "at 5_000 of 5_000\n"
    assert await client.monitor("checkpoint") == "checkpoint-1 is 5_000\n"
    assert await client.monitor("seek panic") == "at 2_500 of 5_000\n"
    assert "panic" in await client.monitor("bookmarks")
    assert "outside" in await client.monitor("seek 9G")
    assert "cannot name" in await client.monitor("bookmark ../x")
    assert "not a monitor command" in await client.monitor("frobnicate \x1b[2J")
    assert "last-write" in await client.monitor("help")
    assert "not an address" in await client.monitor("last-write a b c")
    assert timeline.position == 2500


async def test_physical_memory_mode(talk):
    client, _ = talk
    assert await client.ask("qqemu.PhyMemMode") == "0"
    assert await client.ask("Qqemu.PhyMemMode:1") == "OK"
    assert await client.ask("qqemu.PhyMemMode") == "1"
    assert (await client.ask("Qqemu.PhyMemMode:7")).startswith("E")


async def test_lldb(talk):
    client, _ = talk
    for switch in ("QThreadSuffixSupported", "QListThreadsInStopReply", "QEnableErrorStrings"):
        assert await client.ask(switch) == "OK"
    host = await client.ask("qHostInfo")
    assert f"triple:{b'x86_64-unknown-none'.hex()};ptrsize:8;endian:little;" in host
    assert "watchpoint_exceptions_received:after" in host
    assert "pid:1;" in await client.ask("qProcessInfo")
    assert await client.ask("qMemoryRegionInfo:1008") == "start:1000;size:10000;permissions:rwx;"
    assert await client.ask(f"qMemoryRegionInfo:{MAPPED:x}") == f"start:{MAPPED:x};size:10000;"
    top = await client.ask("qMemoryRegionInfo:ffffffffffffffff")
    assert top == "start:fffffffffffff000;size:1000;"
    assert len(await client.ask("g;thread:0001;")) == 80
    assert len(await client.ask("p0;thread:0001;")) == 16
    assert "threads:1;" in await client.ask("?")
    number, _, text = (await client.ask(f"m{MAPPED:x},4")).partition(";")
    assert number == "E0e"
    assert "no memory" in bytes.fromhex(text).decode()
