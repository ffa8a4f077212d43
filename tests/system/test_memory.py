"""Memory as the timeline reads it, out of RAM, against QEMU's own stub in a fresh replay."""

from __future__ import annotations

import random

import pytest

from retrograde.errors import QemuRefused
from retrograde.machine.gdb.remote import GdbRemote
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.timeline import Timeline
from retrograde.verify.oracle import Oracle, Read

pytestmark = pytest.mark.qemu

PAGE = 4096
WINDOW = 0x40000000
"""Where the guest "pagefault" maps pages when it touches them."""


def ranges(dice, registers):
    """Ranges around what the guest uses, around its pages' edges, and anywhere."""
    pointers = [value for name, value in registers.items() if name.startswith("r")]
    anywhere = (WINDOW + dice.randrange(1 << 21), dice.randrange(1 << 22), dice.getrandbits(64))
    for number in range(40):
        middle = dice.choice([*pointers, *anywhere])
        if number % 2:
            middle &= -PAGE
        start = max(0, min(middle, (1 << 64) - 1) - dice.randrange(2 * PAGE))
        count = dice.choice([1, 8, PAGE, dice.randrange(1, 16 * PAGE)])
        space = "physical" if number % 5 == 0 else "virtual"
        yield Read(start, min(count, (1 << 64) - start), space)


async def read_all(timeline, wanted):
    answers = {}
    for one in wanted:
        try:
            answers[one] = await timeline.read(one.address, one.count, one.space)
        except QemuRefused:
            answers[one] = None
    return answers


@pytest.mark.parametrize("guest", ["tiny", "pagefault"])
async def test_random_ranges_equal_the_stubs(recorded, qemu, guest):
    recording = recorded(guest)
    dice = random.Random(guest)
    places = sorted(dice.randrange(recording.end * 2 // 3, recording.end) for _ in range(3))
    answers = {}
    async with await Timeline.open(recording, qemu) as timeline:
        for place in reversed(places):
            await timeline.seek(place)
            wanted = list(ranges(dice, await timeline.registers()))
            answers[place] = await read_all(timeline, wanted)
            await timeline.step_back(3)
            answers[place - 3] = await read_all(timeline, wanted)
    given = [data for held in answers.values() for data in held.values()]
    assert any(data is None for data in given)
    assert sum(data is not None for data in given) > len(given) // 8
    async with await Oracle.start(recording, qemu, LogFacts.read(recording.log())) as oracle:
        for place in sorted(answers):
            truth = await oracle.state(place, tuple(answers[place]), digest=False)
            for one, data in answers[place].items():
                assert data == truth.memory[one], (place, one)


async def test_a_page_missing_in_the_middle_is_refused(recorded, qemu):
    recording = recorded("pagefault")
    async with await Timeline.open(recording, qemu, at="90%") as timeline:
        pages = range(WINDOW, WINDOW + (1 << 21), PAGE)
        mapped = [bool((await read_all(timeline, [Read(at, 1)]))[Read(at, 1)]) for at in pages]
        edge = next(i for i in range(1, len(pages)) if mapped[i - 1] and not mapped[i])
        assert await timeline.read(pages[edge] - 16, 16)
        with pytest.raises(QemuRefused):
            await timeline.read(pages[edge] - 16, 17)


async def test_ram_is_read_without_asking_qemu(recorded, qemu, monkeypatch):
    asked = []
    read_memory = GdbRemote.read_memory

    async def ask(self, address, count, **rest):
        asked.append((address, count))
        return await read_memory(self, address, count, **rest)

    monkeypatch.setattr(GdbRemote, "read_memory", ask)
    async with await Timeline.open(recorded("tiny"), qemu, at=17_000_000) as timeline:
        parked = await timeline.read(0x100000, 1 << 20)
        assert asked == []
        await timeline.step_back()
        held = await timeline.read(0x100000, 1 << 20)
        assert asked == []
        rom = await timeline.read(0xC0000, PAGE)
        assert asked
    assert len(parked) == len(held) == 1 << 20
    assert sum(a != b for a, b in zip(parked, held, strict=True)) <= 64
    assert len(rom) == PAGE
