"""The table of stores against memory, looked at before and after every instruction."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import retrograde
from retrograde.index.questions.writes import build_writes
from retrograde.index.tables import stores
from retrograde.index.tables.build import build
from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.machine.probe.request import Watch
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from tests import command

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

SPAN = (2_600_000, 2_700_000)
"""Positions of the guest `stacks` with its threads at work."""


@pytest.fixture
def recording(copied: Callable[..., object]) -> Recording:
    return Recording.open(str(copied("stacks")))


def table(recording: Recording) -> list[Any]:
    """All rows but those that SeaBIOS going to SMM, which pushes nothing, is taken for."""
    with IndexStore(recording).connect() as rows:
        query = "FROM writes WHERE paddr IS NOT NULL ORDER BY ALL"
        return rows.execute(query).fetchall()


def places(row: Any) -> list[int]:
    """The physical address of each byte that a row says was stored."""
    _position, _pc, vaddr, paddr, size, _value, _high, beyond = row
    here = min(size, 4096 - vaddr % 4096)
    rest = range(beyond, beyond + size - here) if here < size else ()
    return [*range(paddr, paddr + here), *rest]


def stored(row: Any) -> bytes:
    size, value, high = row[4:7]
    number: int = value | (high or 0) << 64
    return number.to_bytes(size, "little")


def done(recording: Recording) -> list[tuple[int, int]]:
    return IndexStore(recording).done("writes")


async def test_memory_changes_where_and_when_the_rows_say(recording: Recording) -> None:
    """RAM differs from one position to the next in bytes that were stored there, only."""
    await build_writes(recording, qemu_for(recording), None, (0, recording.end))
    written: dict[int, dict[int, int]] = {}
    for row in table(recording):
        written.setdefault(row[0], {}).update(zip(places(row), stored(row), strict=True))
    dice, seen = random.Random(11), 0
    async with await Timeline.open(recording, use_probe=False, replayers=1) as timeline:
        seat = timeline.history.pool.seats[0]
        late = [position for position in written if position > SPAN[0]]
        taken = timeline.facts.deliveries[-20:].tolist()
        for begin in (at - 10 for at in (*dice.sample(late, 3), *dice.sample(taken, 2))):
            await seat.go(begin)
            before = seat.ram.array().copy()
            for position in range(begin, begin + 20):
                await seat.go(position + 1)
                expected = before.copy()
                for place, byte in written.get(position, {}).items():
                    expected[place] = byte
                    seen += 1
                before = seat.ram.array().copy()
                assert np.array_equal(before, expected), position
    assert seen > 20


async def test_no_store_is_lost_when_the_ring_is_short(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = qemu_for(recording)
    await build_writes(recording, qemu, None, SPAN)
    expected = table(recording)
    assert len(done(recording)) == 1
    IndexStore(recording).drop("writes")
    short = stores.Capacity(hits=1, writes=3000, steps=1, changes=1)
    monkeypatch.setattr("retrograde.index.questions.writes.CAPACITY", short)
    # Strides of this length overflow, so that the replay has to go back.
    monkeypatch.setattr(stores, "FULL", 20_000)
    await build_writes(recording, qemu, None, SPAN)
    assert len(done(recording)) > 3
    assert table(recording) == expected != []


async def test_positions_are_added_and_addresses_replaced(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    qemu = qemu_for(recording)
    await build_writes(recording, qemu, None, SPAN)
    everything = table(recording)
    IndexStore(recording).drop("writes")
    quarter = (SPAN[1] - SPAN[0]) // 4
    for span in (
        (SPAN[0] + quarter, SPAN[0] + 2 * quarter),
        (SPAN[0], SPAN[1] - quarter),
        SPAN,
    ):
        await build_writes(recording, qemu, None, span)
    assert table(recording) == everything
    assert (await build_writes(recording, qemu, None, SPAN)).rows == 0
    page = everything[0][3] & ~0xFFF
    await build_writes(recording, qemu, Watch(page, 4096, physical=True), SPAN)
    assert "all memory" in caplog.text
    assert table(recording) == [row for row in everything if row[3] & ~0xFFF == page]


async def test_a_range_of_addresses_with_and_without_an_index(recording: Recording) -> None:
    qemu = qemu_for(recording)
    await build_writes(recording, qemu, None, (0, recording.end))
    everything, answers = table(recording), []
    address = everything[len(everything) // 2][3]
    watched = set(range(address, address + 8))
    expected = [row for row in everything if watched & set(places(row))]
    for _ in range(2):
        rows = retrograde.open(recording.path).writes(address, 8, space="physical")
        answers.append(sorted(rows))
        IndexStore(recording).drop("writes")
        await build_writes(recording, qemu, Watch(address, 8, physical=True), (0, recording.end))
        assert table(recording) == expected
        await build(recording, tables=["blocks", "written"])
    assert answers[0] == answers[1] == expected != []
    last = retrograde.open(recording.path).last_write(address, 8, space="physical")
    assert last is not None
    assert last.position == expected[-1][0]


def test_the_command(copied: Callable[..., object]) -> None:
    path = str(copied("tiny"))
    words = ("index", path, "--writes", "all", "--from", "end-20000", "--to", "end", "--json")
    told = command.retrograde(*words).json()
    counted = command.retrograde("query", path, "SELECT count(*) AS n FROM writes", "--json").json()
    assert counted[0]["n"] == told["stores"] > 0
    for words in (("nonsense",), ("0:0",), ("all", "--from", "end", "--to", "5")):
        command.assert_error(command.retrograde("index", path, "--writes", *words), 2)
    assert command.retrograde(
        "query", path, "SELECT count(*) AS n FROM writes", "--json"
    ).json() == (counted)
