"""Virtual to physical addresses on x86, from registers and memory alone.

Lets reads of virtual memory be answered out of RAM we hold, without a process. Intel SDM
volume 3, chapter 4: 4-level and 5-level paging, PAE and 32-bit paging. As QEMU does for
its gdbstub (x86_cpu_get_phys_page_attrs_debug in target/i386/helper.c), permissions and
reserved bits are not looked at. A20 is taken to be on, as it is from reset. Other ISAs
ask a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from retrograde.errors import QemuRefused
from retrograde.isa.isa import LONG_MODE, X86

PAGE_BITS = 12
PAGE = 1 << PAGE_BITS
_ADDRESS = 0x000FFFFFFFFFF000
_FOUR_GB = 1 << 32

LINUX_SPACE = (1 << 52) - (1 << 13)
"""Of CR3 what names an address space: no PCID, nor the bit by which Linux's page-table isolation
tells the tables of user mode from those of the kernel."""

_WORD = (1 << 64) - 1

ReadPhysical = Callable[[int, int], bytes | None]
"""Return `count` bytes from a physical address, None when they are not known."""


class NotMapped(QemuRefused):
    """The page tables say for sure that nothing is at an address."""


class Mapped(NamedTuple):
    """A physical address, and the bytes from there to the end of its page."""

    physical: int
    room: int


def can_translate(target: str) -> bool:
    """Whether `AddressSpace` knows the paging of a QEMU target."""
    return target in X86


def paging_registers(registers: Mapping[str, int]) -> tuple[int, ...]:
    """Return the registers on which alone, beside memory, an address space depends."""
    return tuple(registers[name] for name in ("cr0", "cr3", "cr4", "efer"))


class AddressSpace:
    """Linear addresses as the registers and the memory of one moment map them.

    `registers` are those of QEMU's i386 target description (cr0, cr3, cr4, efer). Tables
    are read once, a page at a time, and kept: use one for each moment.
    """

    def __init__(self, registers: Mapping[str, int], read: ReadPhysical) -> None:
        self._read = read
        self._tables: dict[int, bytes | None] = {}
        cr0, self._cr3, self._cr4, efer = paging_registers(registers)
        self._is_paged = bool(cr0 >> 31)
        self._is_long = bool(efer & LONG_MODE)

    def translate(self, address: int) -> Mapped | None:
        """Return where `address` is; None when that is not known.

        Raises NotMapped.
        """
        if not self._is_paged:
            return Mapped(address, _FOUR_GB - address) if address < _FOUR_GB else None
        if self._is_long:
            levels = 5 if self._cr4 >> 12 & 1 else 4
            top_bit = PAGE_BITS + 9 * levels - 1
            if address >> top_bit not in (0, _WORD >> top_bit):
                raise not_mapped(address)  # not canonical
            shifts = [PAGE_BITS + 9 * level for level in reversed(range(levels))]
            return self._walk(self._cr3 & _ADDRESS, address, shifts)
        if self._cr4 >> 5 & 1:
            top = self._entry(self._cr3 & 0xFFFFFFE0, address >> 30 & 3, 8, address)
            return None if top is None else self._walk(top & _ADDRESS, address, [21, 12])
        return self._walk_32(address)

    def _walk(self, table: int, address: int, shifts: list[int]) -> Mapped | None:
        """Follow tables of 512 entries of 8 bytes, one for each of `shifts`."""
        for shift in shifts:
            entry = self._entry(table, address >> shift & 511, 8, address)
            if entry is None:
                return None
            if shift == PAGE_BITS or (shift <= 30 and entry >> 7 & 1):
                return _within(entry & _ADDRESS, address, shift)
            table = entry & _ADDRESS
        return None

    def _walk_32(self, address: int) -> Mapped | None:
        """Follow two levels of 1024 entries of 4 bytes."""
        entry = self._entry(self._cr3 & 0xFFFFF000, address >> 22 & 1023, 4, address)
        if entry is None:
            return None
        if entry >> 7 & self._cr4 >> 4 & 1:
            # A page of 4 MB has bits 39-32 of its address in 20-13 (PSE-36).
            return _within((entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32, address, 22)
        entry = self._entry(entry & 0xFFFFF000, address >> PAGE_BITS & 1023, 4, address)
        return None if entry is None else _within(entry & 0xFFFFF000, address, PAGE_BITS)

    def _entry(self, table: int, index: int, size: int, address: int) -> int | None:
        """Return an entry that is present, None when it is not known; raises NotMapped."""
        start, offset = table & -PAGE, (table & PAGE - 1) + index * size
        if start not in self._tables:
            self._tables[start] = self._read(start, PAGE)
        page = self._tables[start]
        if page is None:
            return None
        entry = int.from_bytes(page[offset : offset + size], "little")
        if not entry & 1:
            raise not_mapped(address)
        return entry


def _within(base: int, address: int, shift: int) -> Mapped:
    offset = address & ((1 << shift) - 1)
    return Mapped((base & -(1 << shift)) | offset, (1 << shift) - offset)


def not_mapped(address: int) -> NotMapped:
    """Return what to raise where nothing is at an address."""
    return NotMapped(
        f"No memory is mapped at {address:#x}.", "Addresses are of the guest's current space."
    )
