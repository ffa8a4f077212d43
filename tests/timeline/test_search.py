"""Searching for what only short blocks of translated code can tell."""

from __future__ import annotations

import pytest

from retrograde.timeline.timeline import Timeline
from tests.guests.sums import ALIASES

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

BRANCH = ALIASES["x86_64"][0] + 0x13 + 9
"""`jnz shared_loop`, not taken once in four times; behind `dec` in the same block."""


async def found(timeline, pc, conditions=()):
    number = timeline.add_breakpoint(pc, conditions)
    hits = await timeline.hits(0, timeline.end)
    timeline.remove(number)
    return [hit.position for hit in hits]


async def test_conditions_on_flags(recorded):
    async with await Timeline.open(recorded("aliases")) as timeline:
        branches = await found(timeline, BRANCH)
        await timeline.seek(branches[0])
        assert await timeline.read(BRANCH, 1) == b"\x75"
        assert len(branches) == 4 * 3000
        ends = await found(timeline, BRANCH, "eflags & 0x40 == 0x40")
        assert ends == branches[3::4]
        assert await found(timeline, BRANCH, "eflags & 0x40 == 0 and rcx & 1 == 1") == sorted(
            branches[0::4] + branches[2::4]
        )
        timeline.add_breakpoint(BRANCH, "eflags & 0x40 != 0")
        await timeline.seek(branches[7])
        assert (await timeline.run_back()).position == branches[3]
        assert (await timeline.run()).position == branches[7]


async def test_flags_of_the_first_instruction(recorded):
    """No instruction runs before it from which to learn where QEMU keeps the flags."""
    async with await Timeline.open(recorded("aliases")) as timeline:
        assert await found(timeline, 0xFFFFFFF0, "eflags == 2") == [0]
