"""The last write, found through the index, is the one that a full search finds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from retrograde.errors import UsageError
from retrograde.index.build import build
from retrograde.index.hints import IndexHints
from retrograde.index.lastwrite import last_write
from retrograde.index.store import IndexStore
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from tests import command

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]


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
        with pytest.raises(UsageError, match="within a page"):
            await last_write(timeline, 0xFFF, 2)


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
