"""The last write, found through the index, is the one that a full search finds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from retrograde.errors import UsageError
from retrograde.index.questions.hints import IndexHints
from retrograde.index.tables.build import build
from retrograde.index.tables.store import IndexStore
from retrograde.machine.probe.request import Watch
from retrograde.recording.bundle import Recording
from retrograde.timeline.lastwrite import last_write
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.timeline import Timeline
from tests import command

BORDER = 0x40001000
"""Between two pages of the guest `unaligned` (guests/x86_64/unaligned.S)."""


pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]


def is_across(hit: Hit) -> bool:
    """Whether it is a store to both pages."""
    return bool(hit.is_store and hit.beyond is not None)


async def test_as_a_full_search(copied: Callable[..., object]) -> None:
    recording = Recording.open(str(copied("stacks")))
    await build(recording, tables=["blocks", "written"])
    with IndexStore(recording).connect() as rows:
        pages = [page for (page,) in rows.execute("SELECT DISTINCT page FROM written").fetchall()]
    dice, kinds = random.Random(7), set()
    async with await Timeline.open(recording) as timeline:
        hints = IndexHints.of(recording)
        for page in dice.sample(sorted(pages), 5):
            address, position = page + dice.randrange(500) * 8, dice.randrange(timeline.end)
            answers = []
            for known in (None, hints):
                timeline.hints = known
                await timeline.seek(position)
                answers.append(await last_write(timeline, address, 8, "physical"))
            assert answers[0] == answers[1]
            found = answers[0]
            kinds.add(found is None)
            if found:
                await timeline.seek(found.position)
                assert await timeline.read(address, 8, "physical") == found.old
                await timeline.seek(position)
                assert await timeline.read(address, 8, "physical") == found.new
        assert False in kinds
        with pytest.raises(UsageError, match="not a range"):
            await last_write(timeline, 0xFFF, 0)


async def test_what_devices_wrote(copied: Callable[..., object]) -> None:
    """SeaBIOS has fw_cfg copy ACPI tables to RAM, and an option ROM to where PCs have ROM first.

    Of the ROM's first line all bytes came at once; what hid the RAM before is all zero.
    """
    recording = Recording.open(str(copied("stacks")))
    await build(recording, tables=["blocks", "written"])
    with IndexStore(recording).connect() as rows:
        pages = rows.execute("SELECT page FROM written WHERE bitmap = 0 AND device != 0").fetchall()
    places = [0xCA000, *(page for (page,) in pages[:1])]
    async with await Timeline.open(recording) as timeline:
        timeline.hints = IndexHints.of(recording)
        for place in places:
            await timeline.seek(timeline.end)
            found = await last_write(timeline, place, 16, "physical")
            assert found is not None
            assert found.pc is None
            assert found.old == bytes(16) != found.new
            for position, memory in ((0, found.old), (1, found.new)):
                await timeline.seek(found.position + position)
                assert await timeline.read(place, 16, "physical") == memory
        assert len(places) == 2


async def test_a_range_across_pages(copied: Callable[..., object]) -> None:
    """The newer of the last writes to either page, whose frames lie apart; some are to both."""
    recording = Recording.open(str(copied("unaligned")))
    await build(recording, tables=["blocks", "written"])
    dice, both = random.Random(3), 0
    async with await Timeline.open(recording) as timeline:
        timeline.hints = IndexHints.of(recording)
        late = timeline.end * 5 // 6
        stores = Stops(watches=(Watch(BORDER - 1, 2),))
        across = [
            one for one in await timeline.all_hits(stores, late, late + 2000) if is_across(one)
        ]
        for position in (
            *(one.position + 1 for one in dice.sample(across, 2)),
            *(dice.randrange(late, timeline.end - 10_000) for _ in range(2)),
        ):
            answers = []
            for address, count in ((BORDER - 16, 32), (BORDER - 16, 16), (BORDER, 16)):
                await timeline.seek(position)
                answers.append(await last_write(timeline, address, count))
            whole, *parts = answers
            assert whole is not None
            assert whole.position == max(part.position for part in parts if part)
            both += all(part and part.position == whole.position for part in parts)
            await timeline.seek(position)
            assert await timeline.read(BORDER - 16, 32) == whole.new
            await timeline.seek(whole.position)
            assert await timeline.read(BORDER - 16, 32) == whole.old != whole.new
    assert both


def test_the_command(copied: Callable[..., object]) -> None:
    path = str(copied("tiny"))
    command.retrograde("index", path, "--tables", "blocks,written,calls", "--jobs", "1")
    told = command.retrograde("query", path, "SELECT max(sp) - 8 AS a FROM calls", "--json").json()
    address = hex(told[0]["a"] if isinstance(told, list) else told["rows"][0][0])
    found = command.retrograde("last-write", path, address, "--json").json()
    assert found["position"] > 0
    assert len(bytes.fromhex(found["new"])) == 8
    assert command.retrograde("last-write", path, "0x1fe0000:8", "--physical").status in (0, 1)
    assert command.retrograde("last-write", path, "nonsense").status == 2
