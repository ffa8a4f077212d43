"""Stock gdb on part of a wide access: each command moves, and tells old and new values."""

from __future__ import annotations

import asyncio
import re
import shutil

import pytest

from retrograde.isa.isa import isa_for
from retrograde.machine.compat import qemu_for
from retrograde.timeline.timeline import Timeline
from retrograde.verify.accesses import rounds_of, truth_of
from retrograde.verify.gdbmi import GdbMi
from tests.command import retrograde
from tests.conftest import qemu_that_replays
from tests.system.gdbs import go, seek, serving, where

pytestmark = [pytest.mark.qemu, pytest.mark.gdb, pytest.mark.usefixtures("probe")]

PROGRAMS = {"x86_64": "gdb", "aarch64": "gdb-multiarch", "ppc64": "gdb-multiarch"}
ROUND = slice(-3, -1)
"""The round of the guest before the last, in which all is at the border. In the last gdb would
step over an atomic sequence of Power's as over one instruction."""
WORD = 8


@pytest.fixture(scope="module", params=PROGRAMS)
def session(request, recorded, tmp_path_factory):
    """(gdb attached, the recording, the truth about one of its rounds)."""
    target = request.param
    if shutil.which(PROGRAMS[target]) is None:
        pytest.skip(f"{PROGRAMS[target]} is not installed")
    qemu_that_replays(target)
    recording = recorded("wide", target)

    async def find():
        async with await Timeline.open(recording) as timeline:
            starts = await rounds_of(timeline)
        return await truth_of(recording, qemu_for(recording), *starts[ROUND])

    truth, isa = asyncio.run(find()), isa_for(target)
    path = tmp_path_factory.mktemp("wide") / "gdb"
    with serving(recording, path), GdbMi(PROGRAMS[target]) as gdb:
        gdb.command(f"set architecture {isa.gdb_architecture}")
        gdb.command(f"set endian {isa.byte_order}")
        gdb.connect(path)
        yield gdb, recording, truth


@pytest.fixture(params=[0, 4], ids=["half", "across"])
def watched(request, session):
    """Where a word begins: half of what 16-byte accesses are to, or from both their halves."""
    _gdb, _recording, truth = session
    whole = [one for one in truth.touches if one.is_store and one.stop - one.first == 16]
    return whole[len(whole) // 2].first + request.param


def numbers(truth, order, position, first):
    """The word before and after the instruction at `position`."""
    both = (truth.bytes_at(at, first, first + WORD) for at in (position, position + 1))
    return [int.from_bytes(data, order) for data in both]


@pytest.mark.parametrize("kind", ["watch", "rwatch", "awatch"])
def test_every_command_moves_to_the_next_access_and_tells_values(session, watched, kind):
    gdb, recording, truth = session
    order = isa_for(recording.manifest.machine.target).byte_order
    expected = []
    for position in range(truth.start, truth.stop):
        here = [
            one
            for one in truth.touches
            if one.position == position and one.overlaps(watched, watched + WORD)
        ]
        old, new = numbers(truth, order, position, watched)
        loads = any(not one.is_store for one in here)
        stores = any(one.is_store for one in here)
        if {"watch": old != new, "rwatch": loads, "awatch": loads or stores}[kind]:
            expected.append(position)
    assert len(expected) > 3
    gdb.command("delete")
    seek(gdb, truth.stop)
    gdb.command(f"{kind} *(unsigned long*){watched:#x}")
    for position in reversed(expected):
        text = go(gdb, "reverse-continue")
        assert where(gdb) == position, text
        _tells(text, kind, *reversed(numbers(truth, order, position, watched)))
    for position in expected:
        text = go(gdb, "continue")
        assert where(gdb) == position + 1, text
        _tells(text, kind, *numbers(truth, order, position, watched))
    gdb.command("delete")


def _tells(text, kind, before, after):
    """gdb names the watchpoint and its values, `before` it moved and `after`."""
    assert "atchpoint" in text
    assert "SIGTRAP" not in text
    told = [int(one) for one in re.findall(r"(?:Old value|New value|Value) = (\d+)", text)]
    if kind == "watch":
        assert told == [before, after], text
    else:
        assert told[-1] == after, text


def test_last_write_is_the_same_in_gdb_and_on_the_command_line(session, watched):
    gdb, recording, truth = session
    seek(gdb, truth.stop)
    stores = [
        one for one in truth.touches if one.is_store and one.overlaps(watched, watched + WORD)
    ]
    told = re.search(
        r"([\d_]+): pc (0x[0-9a-f]+) wrote ([0-9a-f ]+) at (0x[0-9a-f]+), over ([0-9a-f ]+)",
        gdb.command(f"monitor last-write {watched:#x} {WORD}"),
    )
    words = (f"{watched:#x}:{WORD}", "--at", str(truth.stop), "--json")
    found = retrograde("last-write", recording.path, *words).json()
    position = int(told[1].replace("_", ""))
    assert position == found["position"] == stores[-1].position
    assert int(told[2], 16) == found["pc"]
    assert int(told[4], 16) == watched
    place = watched, watched + WORD
    assert found["old"] == truth.bytes_at(position, *place).hex()
    assert found["new"] == truth.bytes_at(position + 1, *place).hex()
    assert bytes.fromhex(told[5]) == truth.bytes_at(position, *place)
    assert bytes.fromhex(told[3]) == truth.bytes_at(position + 1, *place)
