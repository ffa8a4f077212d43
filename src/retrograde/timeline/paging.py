"""Virtual to physical addresses on x86, from registers and memory alone.

Lets a window answer reads of virtual memory without a process. Intel SDM volume 3,
chapter 4: 4-level and 5-level paging, PAE and 32-bit paging. Other ISAs ask a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

PAGE_BITS = 12
_ADDRESS = 0x000FFFFFFFFFF000

ReadPhysical = Callable[[int, int], bytes | None]
"""Return `count` bytes from a physical address, None when they are not known."""


def can_translate(target: str) -> bool:
    """Whether `translate` knows the paging of a QEMU target."""
    return target in ("x86_64", "i386")


def translate(registers: Mapping[str, int], address: int, read: ReadPhysical) -> int | None:
    """Return the physical address of a linear one; None when not mapped or not known.

    `registers` are those of QEMU's i386 target description (cr0, cr3, cr4, efer).
    """
    if not registers["cr0"] >> 31:
        return address & 0xFFFFFFFF
    cr3, cr4 = registers["cr3"], registers["cr4"]
    if registers["efer"] >> 10 & 1:
        levels = 5 if cr4 >> 12 & 1 else 4
        shifts = [PAGE_BITS + 9 * level for level in reversed(range(levels))]
        return _walk(cr3 & _ADDRESS, address, shifts, 9, 8, read)
    if cr4 >> 5 & 1:
        top = _entry(cr3 & 0xFFFFFFE0, address >> 30 & 3, 8, read)
        if top is None or not top & 1:
            return None
        return _walk(top & _ADDRESS, address, [21, 12], 9, 8, read)
    return _walk(cr3 & 0xFFFFF000, address, [22, 12], 10, 4, read)


def _walk(
    table: int, address: int, shifts: list[int], bits: int, size: int, read: ReadPhysical
) -> int | None:
    """Follow tables of 2**`bits` entries of `size` bytes, one for each of `shifts`."""
    for shift in shifts:
        entry = _entry(table, address >> shift & ((1 << bits) - 1), size, read)
        if entry is None or not entry & 1:
            return None
        large = shift > PAGE_BITS and shift <= 30 and entry >> 7 & 1
        if large or shift == PAGE_BITS:
            offset = address & ((1 << shift) - 1)
            base = entry & _ADDRESS if size == 8 else _base_32(entry, shift)
            return (base & ~((1 << shift) - 1)) | offset
        table = entry & (_ADDRESS if size == 8 else 0xFFFFF000)
    return None


def _base_32(entry: int, shift: int) -> int:
    """Return the frame of a 32-bit entry; 4 MB pages have bits 39-32 in 20-13 (PSE-36)."""
    if shift == PAGE_BITS:
        return entry & 0xFFFFF000
    return (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32


def _entry(table: int, index: int, size: int, read: ReadPhysical) -> int | None:
    data = read(table + index * size, size)
    return None if data is None else int.from_bytes(data, "little")
