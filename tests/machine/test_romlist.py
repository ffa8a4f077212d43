"""What a reset writes into RAM."""

from __future__ import annotations

import pytest

from retrograde.machine.replayer import Replayer
from retrograde.machine.romlist import PAGE, pages_reset_writes
from retrograde.machine.snapshot import Snapshot

ROMS = """\
fw=genroms/pvh.bin size=0x000600 name="pvh.bin"
addr=0000000000100ff0 size=0x002000 mem=ram name="kernel.elf ELF program header segment 0"
addr=00000000fffc0000 size=0x040000 mem=rom name="bios-256k.bin"
/rom@etc/acpi/tables size=0x200000 name="etc/acpi/tables"
"""


def saying(roms):
    """Return a human monitor that lists these images."""

    async def human(line):
        assert line == "info roms"
        return roms

    return human


async def test_images_in_ram_by_page():
    assert await pages_reset_writes(saying(ROMS), "x86_64") == [0x100, 0x101, 0x102]
    assert await pages_reset_writes(saying(""), "i386") == []


@pytest.mark.parametrize("target", ["ppc64", "aarch64", "s390x"])
async def test_of_other_machines_nothing_is_known(target):
    assert await pages_reset_writes(saying(ROMS), target) is None


async def test_where_ram_is_not_at_its_own_offset_nothing_is_known():
    roms = 'addr=0000000100000000 size=0x001000 mem=ram name="x"\n'
    assert await pages_reset_writes(saying(roms), "x86_64") is None


@pytest.mark.qemu
async def test_a_load_changes_no_other_page(recorded, qemu):
    """What a load leaves of RAM other than what it was, is on the list."""
    recording = recorded("tiny")
    async with await Replayer.start(recording, qemu) as replayer:
        listed = await pages_reset_writes(replayer.human, "x86_64")
        assert listed
        await replayer.run_to(recording.end // 2)
        before = bytes(replayer.ram.view())
        await replayer.save("here")
        left = []

        def look(ram):
            left.append(bytes(ram.view()))
            ram.view()[:] = before

        await replayer.run_to(recording.end // 2 + 100_000)
        await replayer.load(Snapshot("here", recording.end // 2, look))
        assert len(left) == 2
        changed = [
            page
            for page in range(len(before) // PAGE)
            if left[1][page * PAGE : (page + 1) * PAGE] != before[page * PAGE : (page + 1) * PAGE]
        ]
        assert changed
        assert set(changed) <= set(listed)
