"""Code that QEMU translates once and runs at several addresses is found at each."""

from __future__ import annotations

from collections import Counter

import pytest

from retrograde.index.symbols.symbolfile import read_symbol_file
from retrograde.timeline.timeline import Timeline
from tests.guests.sums import ALIASES, calls_of_alias

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.usefixtures("probe"),
    pytest.mark.parametrize("target", ALIASES),
]


def offset_of_loop(recording):
    """Bytes from the start of the page to its loop, in the middle of a block at first."""
    [image] = recording.manifest.inputs
    known = read_symbol_file(recording.input_path(image.name)).symbols
    symbols = {one.name: one.address for one in known}
    return symbols["shared_loop"] - symbols["shared"]


async def test_breakpoints_are_hit_at_the_address_they_are_at(recorded, target):
    recording, places = recorded("aliases", target), ALIASES[target]
    loop = offset_of_loop(recording)
    async with await Timeline.open(recording) as timeline:
        for place in places:
            timeline.add_breakpoint(place)
            timeline.add_breakpoint(place + loop)
        hits = await timeline.hits(0, timeline.end)
        calls = dict(zip(places, (3000, calls_of_alias(target), 3000), strict=True))
        loops = {place + loop: 4 * count for place, count in calls.items()}
        assert Counter(hit.pc for hit in hits) == calls | loops
        for hit in hits[:: len(hits) // 9]:
            await timeline.seek(hit.position)
            assert await timeline.pc() == hit.pc


async def test_running_to_one_address_passes_the_others(recorded, target):
    recording = recorded("aliases", target)
    async with await Timeline.open(recording, at="end") as timeline:
        for place in ALIASES[target][1:]:
            number = timeline.add_breakpoint(place + offset_of_loop(recording))
            hit = await timeline.run_back()
            assert hit is not None and hit.position == timeline.position
            assert await timeline.pc() == place + offset_of_loop(recording)
            timeline.remove(number)
