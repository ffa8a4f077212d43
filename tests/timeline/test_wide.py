"""Accesses of up to 64 bytes, at once and in parts, across pages: what all see is the same."""

from __future__ import annotations

import asyncio

import pytest

from retrograde.index.questions.origin import origin
from retrograde.index.questions.writes import build_writes, row_of
from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.machine.probe.request import Watch
from retrograde.recording.bundle import Recording
from retrograde.timeline.search import Stops
from retrograde.timeline.timeline import Timeline
from retrograde.verify.accesses import AROUND, BORDERS, rounds_of, told_by_qemu, truth_of
from retrograde.verify.accessfuzz import Fuzz
from retrograde.verify.oracle import Watched

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

TARGETS = tuple(BORDERS)
ROUNDS = 3
"""Rounds of the guest that are looked at: those in which all is at the border."""


@pytest.fixture(scope="module", params=TARGETS)
def known(request, recorded):
    """A recording of the guest, and the truth about its last rounds."""
    recording = recorded("wide", request.param)

    async def find():
        async with await Timeline.open(recording) as timeline:
            starts = await rounds_of(timeline)
        return await truth_of(recording, qemu_for(recording), starts[-ROUNDS], starts[-1])

    return recording, asyncio.run(find())


async def test_random_watches_agree_with_what_is_accessed(known):
    recording, truth = known
    async with await Timeline.open(recording) as timeline:
        fuzz = Fuzz(timeline, truth, seed=7)
        await fuzz.run(20)
    assert fuzz.hits > 20


async def test_each_part_of_one_access_is_hit_by_it_as_a_whole(known):
    """A byte, either half, what straddles them: one hit each, and going back never stays."""
    recording, truth = known
    whole = [one for one in truth.touches if one.is_store and one.unit == 16]
    touch = whole[len(whole) // 2]
    async with await Timeline.open(recording) as timeline:
        for first, count in ((0, 1), (0, 8), (4, 8), (8, 8), (15, 1)):
            number = timeline.add_watchpoint(touch.first + first, count, "w")
            await timeline.seek(touch.position + 1)
            hit = await timeline.run_back()
            assert (hit.position, timeline.position) == (touch.position, touch.position)
            assert hit.size == 16
            assert touch.first <= hit.address < touch.stop
            hit = await timeline.run_back()
            assert hit is None or hit.position < touch.position
            timeline.remove(number)


async def test_the_index_has_one_row_for_each_store(known, tmp_path):
    recording, truth = known
    low = truth.border - AROUND
    await build_writes(recording, qemu_for(recording), None, (truth.start, truth.stop))
    with IndexStore(recording).connect() as rows:
        query = f"FROM writes WHERE vaddr BETWEEN {low} AND {low + 2 * AROUND - 1}"
        table = rows.execute(f"{query} ORDER BY ALL").fetchall()
    async with await Timeline.open(recording) as timeline:
        watch = Watch(low, 2 * AROUND)
        hits = await timeline.all_hits(Stops(watches=(watch,)), truth.start, truth.stop)
    rows = sorted(map(row_of, hits), key=lambda row: [value or 0 for value in row])
    assert table == rows != []
    assert any(row[-1] is not None for row in table)
    assert any(row[-2] is not None for row in table)


async def test_what_the_table_in_the_image_says_is_what_qemus_watchpoints_see(known):
    recording, truth = known
    if recording.manifest.machine.target == "ppc64":
        pytest.skip("QEMU's stub does not tell of watchpoints there")
    for access in ("r", "w"):
        first = truth.border - 3
        expected = {
            one.position
            for one in truth.touches
            if one.is_store == (access == "w") and one.overlaps(first, first + 5)
        }
        watched = Watched(first, 5, access)
        told = await told_by_qemu(recording, qemu_for(recording), truth, watched)
        assert told == expected != set()


async def test_either_half_of_a_pair_comes_from_its_register(known):
    recording, truth = known
    if recording.manifest.machine.target != "aarch64":
        pytest.skip("there are no pairs")
    stores = [one for one in truth.touches if one.is_store and one.first == truth.border]
    pair = next(one for one in stores if one.stop - one.first == 16)  # stp x5, x6, [x2]
    async with await Timeline.open(recording) as timeline:
        for offset, register in ((0, "x5"), (8, "x6"), (12, "x6")):
            await timeline.seek(pair.position + 1)
            [step] = await origin(timeline, pair.first + offset, 4, most=1)
            assert (step.position, step.kind) == (pair.position, "store")
            assert step.what.endswith(f"from {register}")


def test_a_guest_without_a_table_is_refused(recorded):
    from retrograde.errors import InternalError
    from retrograde.verify.accesses import table_of

    with pytest.raises(InternalError):
        table_of(Recording.open(recorded("tiny").path))
