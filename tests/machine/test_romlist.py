"""What a reset writes into RAM."""

from __future__ import annotations

import pytest

from retrograde.machine.replayer import Replayer, Snapshot
from retrograde.machine.romlist import PAGE, pages_reset_writes

ROMS = """\
fw=genroms/pvh.bin size=0x000600 name="pvh.bin"
addr=0000000000100ff0 size=0x002000 mem=ram name="kernel.elf ELF program header segment 0"
addr=00000000fffc0000 size=0x040000 mem=rom name="bios-256k.bin"
/rom@etc/acpi/tables size=0x200000 name="etc/acpi/tables"
"""


def test_images_in_ram_by_page():
    assert pages_reset_writes("x86_64", ROMS) == [0x100, 0x101, 0x102]
    assert pages_reset_writes("i386", "") == []


@pytest.mark.parametrize("target", ["ppc64", "aarch64", "s390x"])
def test_of_other_machines_nothing_is_known(target):
    assert pages_reset_writes(target, ROMS) is None


def test_where_ram_is_not_at_its_own_offset_nothing_is_known():
    roms = 'addr=0000000100000000 size=0x001000 mem=ram name="x"\n'
    assert pages_reset_writes("x86_64", roms) is None


@pytest.mark.qemu
async def test_a_load_changes_no_other_page(recorded, qemu):
    """What a load leaves of RAM other than what it was, is on the list."""
    recording = recorded("tiny")
    async with await Replayer.start(recording, qemu) as replayer:
        roms = await replayer.monitor.human("info roms")
        listed = pages_reset_writes("x86_64", roms)
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
