"""Page walks over tables laid out by hand; against QEMU itself: tests/system/test_memory.py."""

from __future__ import annotations

import pytest

from retrograde.errors import QemuRefused
from retrograde.timeline.paging import AddressSpace, can_translate

CR0_PAGING = 1 << 31
CR4_PSE, CR4_PAE, CR4_LA57 = 1 << 4, 1 << 5, 1 << 12
LONG_MODE = 1 << 10
PRESENT, LARGE, NO_EXECUTE = 1, 1 << 7, 1 << 63
TABLES = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000


class Memory:
    """Sparse physical memory below 64 KiB; what is above is not known."""

    def __init__(self):
        self.bytes = bytearray(0x10000)
        self.reads = []

    def put(self, address, value, size=8):
        self.bytes[address : address + size] = value.to_bytes(size, "little")

    def read(self, address, count):
        self.reads.append(address)
        if address + count > len(self.bytes):
            return None
        return bytes(self.bytes[address : address + count])


@pytest.fixture
def memory():
    return Memory()


def space(memory, cr4, efer=0, cr0=CR0_PAGING, cr3=TABLES[0]):
    return AddressSpace({"cr0": cr0, "cr3": cr3, "cr4": cr4, "efer": efer}, memory.read)


def link(memory, address, shifts):
    """Make tables TABLES[0], [1], ... point to one another on the way to `address`."""
    for level, shift in enumerate(shifts):
        index = address >> shift & 511
        memory.put(TABLES[level] + 8 * index, TABLES[level + 1] | PRESENT | 0x6)


@pytest.mark.parametrize(
    ("cr4", "shifts", "address"),
    [
        (CR4_PAE, (39, 30, 21), 0x0000_7ABC_DEF0_1234),
        (CR4_PAE, (39, 30, 21), 0xFFFF_FFFF_8123_4FFF),
        (CR4_PAE | CR4_LA57, (48, 39, 30, 21), 0x00AB_CDEF_0123_4567),
        (CR4_PAE | CR4_LA57, (48, 39, 30, 21), 0xFFAB_CDEF_0123_4567),
    ],
)
def test_small_pages_of_long_mode(memory, cr4, shifts, address):
    link(memory, address, shifts)
    entry = TABLES[len(shifts)] + 8 * (address >> 12 & 511)
    memory.put(entry, 0x000A_BCDE_F012_3000 | PRESENT | NO_EXECUTE)
    mapped = space(memory, cr4, LONG_MODE).translate(address)
    assert mapped.physical == 0x000A_BCDE_F012_3000 | address & 0xFFF
    assert mapped.room == 0x1000 - (address & 0xFFF)


@pytest.mark.parametrize(("shifts", "size"), [((39, 30), 1 << 21), ((39,), 1 << 30)])
def test_large_pages_of_long_mode(memory, shifts, size):
    address = 0xFFFF_8880_1234_5678
    link(memory, address, shifts)
    entry = TABLES[len(shifts)] + 8 * (address >> (21 if size == 1 << 21 else 30) & 511)
    memory.put(entry, 0x4000_0000 | 0x1000 | LARGE | PRESENT)  # bit 12 is the PAT's
    mapped = space(memory, CR4_PAE, LONG_MODE).translate(address)
    assert mapped == (0x4000_0000 + address % size, size - address % size)


def test_addresses_that_are_not_canonical_are_nowhere(memory):
    link(memory, 0, (39, 30, 21))
    link(memory, 1 << 47, (39, 30, 21))
    for index in (0, 511):
        memory.put(TABLES[3] + 8 * index, PRESENT)
    four_levels = space(memory, CR4_PAE, LONG_MODE)
    assert four_levels.translate(0).physical == 0
    for address in (1 << 47, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63):
        with pytest.raises(QemuRefused, match=f"{address:#x}"):
            four_levels.translate(address)


def test_pae_without_long_mode(memory):
    address = 0xC123_4567
    memory.put(0x1020 + 8 * 3, TABLES[1] | PRESENT)  # the top table is 32-byte aligned
    memory.put(TABLES[1] + 8 * (address >> 21 & 511), 0x1_0020_0000 | LARGE | PRESENT)
    mapped = space(memory, CR4_PAE, cr3=0x1020).translate(address)
    assert mapped.physical == 0x1_0020_0000 + address % (1 << 21)


def test_two_levels_of_32_bits(memory):
    address = 0xC0ABC123
    memory.put(TABLES[0] + 4 * (address >> 22), TABLES[1] | PRESENT, 4)
    memory.put(TABLES[1] + 4 * (address >> 12 & 1023), 0x7654_3000 | PRESENT, 4)
    assert space(memory, CR4_PSE).translate(address) == (0x7654_3123, 0x1000 - 0x123)


def test_pages_of_4_mb_where_they_are_enabled(memory):
    address = 0xC0ABC123
    entry = 0x0040_0000 | 0x5 << 13 | LARGE | PRESENT
    memory.put(TABLES[0] + 4 * (address >> 22), entry, 4)
    mapped = space(memory, CR4_PSE).translate(address)
    assert mapped.physical == 0x5_0040_0000 + address % (1 << 22)
    memory.put(0xA000 + 4 * (address >> 12 & 1023), 0x9000 | PRESENT, 4)
    small = entry & 0xFFFFF000  # the same entry taken for a table's: nobody knows that one
    assert small > len(memory.bytes)
    assert space(memory, 0).translate(address) is None


def test_without_paging_addresses_are_physical(memory):
    unpaged = space(memory, 0, cr0=1)
    assert unpaged.translate(0xFFFF_FFF0) == (0xFFFF_FFF0, 0x10)
    assert unpaged.translate(1 << 32) is None


def test_every_table_is_read_once(memory):
    link(memory, 0, (39, 30, 21))
    for index in range(100):
        memory.put(TABLES[3] + 8 * index, 0x100000 + index * 0x1000 | PRESENT)
    one = space(memory, CR4_PAE, LONG_MODE)
    for index in range(100):
        assert one.translate(index << 12).physical == 0x100000 + index * 0x1000
    with pytest.raises(QemuRefused):
        one.translate(100 << 12)
    assert memory.reads == list(TABLES[:4])


def test_what_is_not_known_is_not_guessed(memory):
    memory.put(TABLES[0], 0x123_4000 | PRESENT)
    assert space(memory, CR4_PAE, LONG_MODE).translate(0) is None


def test_the_targets():
    assert can_translate("x86_64")
    assert not can_translate("riscv64")
