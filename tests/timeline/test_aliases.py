"""Code that QEMU translates once and runs at several addresses is found at each."""

from __future__ import annotations

from collections import Counter

import pytest

from retrograde.timeline.timeline import Timeline
from tests.guests.sums import ALIASES, calls_of_alias

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

LOOP = 0x13
"""Bytes from the start of the page to `shared_loop`, in the middle of a block at first."""


async def test_breakpoints_are_hit_at_the_address_they_are_at(recorded):
    async with await Timeline.open(recorded("aliases")) as timeline:
        for place in ALIASES:
            timeline.add_breakpoint(place)
            timeline.add_breakpoint(place + LOOP)
        hits = await timeline.hits(0, timeline.end)
        calls = dict(zip(ALIASES, (3000, calls_of_alias(), 3000), strict=True))
        loops = {place + LOOP: 4 * count for place, count in calls.items()}
        assert Counter(hit.pc for hit in hits) == calls | loops
        for hit in hits[:: len(hits) // 9]:
            await timeline.seek(hit.position)
            assert await timeline.pc() == hit.pc


async def test_running_to_one_address_passes_the_others(recorded):
    async with await Timeline.open(recorded("aliases"), at="end") as timeline:
        for place in ALIASES[1:]:
            number = timeline.add_breakpoint(place + LOOP)
            hit = await timeline.run_back()
            assert hit is not None and hit.position == timeline.position
            assert await timeline.pc() == place + LOOP
            timeline.remove(number)
