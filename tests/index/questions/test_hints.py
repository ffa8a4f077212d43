"""Searches with an index find what searches without one find."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from retrograde.index.questions.hints import IndexHints
from retrograde.index.tables.build import build
from retrograde.index.tables.store import IndexStore
from retrograde.machine.probe.request import Breakpoint, Watch
from retrograde.recording.bundle import Recording
from retrograde.timeline.search import Stops
from retrograde.timeline.timeline import Timeline

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]


@pytest.fixture
async def indexed(copied: Callable[..., object]) -> Recording:
    recording = Recording.open(str(copied("stacks")))
    await build(recording, tables=["blocks", "written"])
    return recording


def some_stops(recording: Recording, dice: random.Random) -> list[Stops]:
    with IndexStore(recording).connect() as rows:
        blocks = rows.execute("SELECT DISTINCT pc, size_bytes FROM blocks ORDER BY 1, 2").fetchall()
        pages = rows.execute("SELECT DISTINCT page FROM written ORDER BY 1").fetchall()
    chosen = dice.sample(blocks, 6)
    return [
        *(Stops((Breakpoint(pc + dice.randrange(size)),)) for pc, size in chosen),
        Stops((Breakpoint(0xDEAD0000),)),
        *(
            Stops(watches=(Watch(page + dice.randrange(4096), 4, "w", physical=physical),))
            for (page,) in dice.sample(pages, 3)
            for physical in (True, False)
        ),
        Stops(watches=(Watch(pages[0][0], 4, "r"),)),
    ]


async def test_the_same_hits_with_and_without(indexed: Recording) -> None:
    dice, hints = random.Random(5), IndexHints.of(indexed)
    assert hints is not None
    async with await Timeline.open(indexed) as timeline:
        for stops in some_stops(indexed, dice):
            for one in (*stops.breakpoints, *stops.watches):
                number = (
                    timeline.add_breakpoint(one.pc)
                    if isinstance(one, Breakpoint)
                    else timeline.add_watchpoint(
                        one.start, one.length, one.access, "physical" if one.physical else "virtual"
                    )
                )
            position, answers = dice.randrange(timeline.end), []
            for known in (None, hints):
                timeline.hints = known
                await timeline.seek(position)
                back = await timeline.run_back()
                await timeline.seek(position)
                answers.append((back, await timeline.run()))
            assert answers[0] == answers[1]
            timeline.remove(number)


async def test_the_machine_that_shows_the_hit_goes_there_meanwhile(indexed: Recording) -> None:
    with IndexStore(indexed).connect() as rows:
        blocks = rows.execute("SELECT pc, last FROM blocks ORDER BY last").fetchall()
    pc, last = blocks[len(blocks) // 2]
    async with await Timeline.open(indexed, at="end", replayers=2) as timeline:
        timeline.hints = IndexHints.of(indexed)
        await timeline.pc()
        hit = await timeline.last_hit(Stops((Breakpoint(pc),)), 0, timeline.end)
        assert hit is not None
        assert last <= hit.position < timeline.end - 10_000
        assert 0 <= hit.position - timeline.history.pool.seats[0].position < 1000
        await timeline.seek(hit.position)
        assert await timeline.pc() == pc


async def test_what_never_ran_is_nowhere(indexed: Recording) -> None:
    hints = IndexHints.of(indexed)
    assert hints is not None
    never = Stops((Breakpoint(0xDEAD0000),))
    assert hints.spans(never, 0, indexed.end, only_last=False) == []
    untouched = Stops(watches=(Watch(1 << 40, 8, "w", physical=True),))
    assert hints.spans(untouched, 0, indexed.end, only_last=True) == []
    read = Stops(watches=(Watch(1 << 40, 8, "rw", physical=True),))
    assert hints.spans(read, 5, indexed.end, only_last=True) == [(5, indexed.end)]
    assert hints.spans(never, 7, 7, only_last=True) == []


def test_no_index_no_hints(copied: Callable[..., object]) -> None:
    assert IndexHints.of(Recording.open(str(copied("tiny")))) is None
