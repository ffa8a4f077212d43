"""Real gdb on our server on a real QEMU, compared with the timeline itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil

import pytest

from retrograde.timeline.timeline import Timeline
from retrograde.verify.gdbmi import GdbFailed, GdbMi
from tests.system.gdbs import go, seek, serving, where

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]


@pytest.fixture(scope="module")
def served(recorded, tmp_path_factory):
    """(gdb attached, its socket, the recording): the server runs in a thread of its own."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    recording = recorded("tiny")
    path = tmp_path_factory.mktemp("served") / "gdb"
    with serving(recording, path), GdbMi() as gdb:
        symbols = next(recording.path.glob("inputs/*.elf"))
        gdb.command(f"file {symbols}")
        gdb.connect(path)
        yield gdb, path, recording


@pytest.fixture
def gdb(served):
    """gdb in the middle of the guest's work, without any break- or watchpoints."""
    gdb, _path, _recording = served
    gdb.command("delete")
    seek(gdb, 17_000_000)
    return gdb


def pc(gdb):
    return gdb.register("pc")


def function(gdb):
    found = re.search(r"<(\w+)[+>]", gdb.command("x/i $pc"))
    return found[1] if found else None


def test_stepping_back_undoes_stepping(gdb):
    seen = [(where(gdb), pc(gdb))]
    for _ in range(20):
        go(gdb, "stepi")
        seen.append((where(gdb), pc(gdb)))
    assert [position for position, _ in seen] == list(range(17_000_000, 17_000_021))
    for expected in reversed(seen[:-1]):
        go(gdb, "reverse-stepi")
        assert (where(gdb), pc(gdb)) == expected


@pytest.mark.usefixtures("probe")
def test_breakpoints_both_ways(gdb):
    gdb.command("break putc")
    assert "Breakpoint" in go(gdb, "reverse-continue")
    last = where(gdb)
    assert function(gdb) == "putc"
    go(gdb, "reverse-continue")
    assert where(gdb) < last
    assert "Breakpoint" in go(gdb, "continue")
    assert where(gdb) == last
    go(gdb, "continue")
    assert where(gdb) > 17_000_000
    assert function(gdb) == "putc"


@pytest.mark.usefixtures("probe")
def test_ignored_hits_are_counted_both_ways(gdb):
    gdb.command("break putc")
    places = []
    for _ in range(7):
        go(gdb, "reverse-continue")
        places.append((where(gdb), gdb.register("rsp"), gdb.command("x/2gx $rsp")))
    gdb.command("ignore $bpnum 5")
    go(gdb, "continue")
    assert (where(gdb), gdb.register("rsp"), gdb.command("x/2gx $rsp")) == places[0]
    gdb.command("ignore $bpnum 5")
    go(gdb, "reverse-continue")
    assert (where(gdb), gdb.register("rsp"), gdb.command("x/2gx $rsp")) == places[6]


@pytest.mark.usefixtures("probe")
def test_ignored_accesses_are_counted_both_ways(gdb):
    seek(gdb, 16_900_000)
    gdb.command(f"awatch *(long*){gdb.register('rsp') - 8:#x}")
    places = []
    for _ in range(7):
        go(gdb, "continue")
        places.append((where(gdb), pc(gdb), gdb.command("x/2gx $rsp - 8")))
    gdb.command("ignore $bpnum 5")
    go(gdb, "reverse-continue")  # the first is the one it stands behind
    assert where(gdb) == places[1][0] - 1
    gdb.command("ignore $bpnum 5")
    go(gdb, "continue")
    assert (where(gdb), pc(gdb), gdb.command("x/2gx $rsp - 8")) == places[6]


@pytest.mark.usefixtures("probe")
def test_a_watchpoint_shows_old_and_new_both_ways(gdb):
    gdb.command("watch *(long*)0x200100")
    text = go(gdb, "reverse-continue")
    assert "Old value" in text
    written = where(gdb)
    assert gdb.register("pc") == pc(gdb)
    before = gdb.command("print/x *(long*)0x200100")
    text = go(gdb, "continue")
    assert "New value" in text
    assert where(gdb) == written + 1
    assert gdb.command("print/x *(long*)0x200100") != before.replace("$1", "$2")


@pytest.mark.usefixtures("probe")
def test_conditions_hold_where_it_stops(gdb):
    gdb.command("break work if $r12 % 2 == 1 && $rsp != 0")
    go(gdb, "reverse-continue")
    assert function(gdb) == "work" or where(gdb) == 0
    gdb.command("delete")
    seek(gdb, 17_000_000)
    address = pc(gdb)
    gdb.command(f"break *{address:#x} if ($r12 & 0xff) == 0x42")
    go(gdb, "reverse-continue")
    assert where(gdb) < 17_000_000
    assert pc(gdb) == address
    assert gdb.register("r12") & 0xFF == 0x42
    gdb.command("delete")
    here = where(gdb)
    gdb.command(f"break *{address:#x} if $r12 % 100 == 7")
    go(gdb, "continue")
    assert where(gdb) > here
    assert gdb.register("r12") % 100 == 7


@pytest.mark.usefixtures("probe")
def test_reverse_finish_and_next(gdb):
    gdb.command("break putc")
    go(gdb, "reverse-continue")
    gdb.command("delete")
    entry = where(gdb)
    go(gdb, "stepi")
    go(gdb, "stepi")
    go(gdb, "reverse-finish")
    assert where(gdb) < entry  # at the call
    call = where(gdb)
    go(gdb, "nexti")
    after = where(gdb)
    assert after > entry
    go(gdb, "reverse-nexti")
    assert where(gdb) == call


@pytest.mark.usefixtures("probe")
def test_the_ends_are_told(gdb):
    seek(gdb, 3)
    assert "No more reverse-execution history" in go(gdb, "reverse-continue")
    assert where(gdb) == 0
    assert "No more reverse-execution history" in go(gdb, "continue")


def test_the_past_is_read_only(gdb):
    with pytest.raises(GdbFailed, match="read-only"):
        gdb.command("set $rax = 1")
    with pytest.raises(GdbFailed):
        gdb.command("set *(int*)0x200000 = 1")


@pytest.mark.usefixtures("probe")
def test_reconnecting_keeps_position_and_gdbs_breakpoints(gdb, served):
    _gdb, path, _recording = served
    gdb.command("break putc")
    gdb.command("disconnect")
    gdb.connect(path)
    assert where(gdb) == 17_000_000
    assert "Breakpoint" in go(gdb, "reverse-continue")


@pytest.mark.parametrize("sysroot", ["target:", ""])
def test_a_client_without_a_file_gets_the_guests(gdb, served, sysroot):
    """Read through the server, or where the server says it is."""
    _gdb, path, _recording = served
    gdb.command("disconnect")
    try:
        with GdbMi() as other:
            other.command(f"set sysroot {sysroot}")
            other.connect(path)
            assert ("target:" in other.command("info files")) == bool(sysroot)
            assert function(other)
            assert "Breakpoint" in other.command("break putc")
            other.command("disconnect")
    finally:
        gdb.connect(path)


def test_a_second_gdb_is_told_why_it_is_not_served(gdb, served):
    _gdb, path, _recording = served
    with GdbMi() as other:
        with pytest.raises(GdbFailed, match="Another debugger is attached to this recording"):
            other.connect(path)
        assert where(gdb) == 17_000_000


def test_random_scripts_agree_with_the_timeline(gdb, served):
    _gdb, _path, recording = served
    rng = random.Random(20)
    seek(gdb, 9_000_000)
    start = where(gdb)
    done = []
    for _ in range(40):
        count = rng.choice([1, 1, 2, 7])
        line = rng.choice(["stepi", "reverse-stepi", "monitor seek"])
        if line == "monitor seek":
            seek(gdb, rng.randrange(8_000_000, 9_100_000))
        else:
            for _ in range(count):
                go(gdb, line)
        done.append((where(gdb), pc(gdb), gdb.register("rax"), gdb.register("eflags")))
    assert start == 9_000_000

    async def compare():
        async with await Timeline.open(recording, replayers=1) as timeline:
            for position, pc, rax, eflags in done:
                await timeline.seek(position)
                registers = await timeline.registers()
                assert (pc, rax) == (registers["rip"], registers["rax"]), position
                assert eflags == registers["eflags"], position

    asyncio.run(compare())


@pytest.mark.usefixtures("probe")
def test_commands_of_our_own(gdb):
    with contextlib.suppress(GdbFailed):
        gdb.command("python import retrograde")
    from importlib import resources

    gdb.command(f"source {resources.files('retrograde.gdbserver') / 'gdbinit.py'}")
    assert "at 17_000_000 of" in gdb.command("retro when")
    gdb.command("retro bookmark here")
    assert "at 0 of" in gdb.command("retro start")
    assert pc(gdb) == 0xFFF0
    assert "at 17_000_000 of" in gdb.command("retro seek here")
    assert "here" in gdb.command("complete retro seek h")
    assert "TINY-START" in gdb.command("retro console START")
    found = re.search(r"([\d_]+): pc 0x\w+ wrote", gdb.command("retro last-write 0x200100 8"))
    assert found
    position = int(found[1].replace("_", ""))
    gdb.command(f"retro seek {position}")
    before = gdb.command("x/gx 0x200100")
    go(gdb, "stepi")
    assert gdb.command("x/gx 0x200100") != before
    gdb.command("python gdb.prompt_hook = None")
