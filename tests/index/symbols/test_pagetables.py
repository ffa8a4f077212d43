"""From pages back to the address spaces that map them, over tables laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from retrograde.index.symbols.pagetables import PageTables, Scheme, root_of, scheme_of
from tests.index.guestmemory import PAGE, GuestMemory

PAGING, PAE, LA57, LONG = 1 << 31, 1 << 5, 1 << 12, 1 << 10


def registers(cr4: int, efer: int, cr0: int = PAGING, cr3: int = 0) -> dict[str, int]:
    return {"cr0": cr0, "cr3": cr3, "cr4": cr4, "efer": efer}


KINDS = {
    "4-level": (registers(PAE, LONG), 0x7F12_3456_7000),
    "5-level": (registers(PAE | LA57, LONG), 0xAB_7F12_3456_7000),
    "PAE": (registers(PAE, 0), 0xC123_4000),
    "32-bit": (registers(0, 0), 0xC123_4000),
}


def of_kind(name: str) -> tuple[Scheme, int]:
    found, address = KINDS[name]
    scheme = scheme_of(found)
    assert scheme is not None
    return scheme, address


def mapping(memory: GuestMemory, *pages: int) -> set[tuple[int, int, int]]:
    tables = PageTables(memory.pages, memory.view, memory.scheme)
    found = tables.mapping(memory.table, np.array(pages))
    return set(zip(*(c.tolist() for c in (found.root, found.address, found.page)), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_tables(kind: str) -> None:
    scheme, address = of_kind(kind)
    memory = GuestMemory(scheme)
    code, other = memory.page(b"code"), memory.page(b"other")
    root = memory.page() * PAGE
    memory.map(root, address, code)
    memory.map(root, address + PAGE, other)
    memory.map(root, 0x1000, code)
    assert mapping(memory, code) == {(root, address, code), (root, 0x1000, code)}
    tables = PageTables(memory.pages, memory.view, scheme)
    assert tables.page_at(memory.table, root, address + PAGE) == other
    assert tables.page_at(memory.table, root, address + 2 * PAGE) is None
    assert tables.page_at(memory.table, len(memory.data), address) is None


def test_a_pae_root_is_smaller_than_a_page() -> None:
    scheme, address = of_kind("PAE")
    memory = GuestMemory(scheme)
    code, roots = memory.page(), memory.page() * PAGE
    for root in (roots + 0x20, roots + 0xFE0):
        memory.map(root, address, code)
    assert mapping(memory, code) == {(roots + at, address, code) for at in (0x20, 0xFE0)}
    assert root_of(registers(PAE, 0, cr3=roots + 0x20 | 3)) == roots + 0x20


def test_several_spaces_share_a_page_and_only_users_count() -> None:
    scheme, address = of_kind("4-level")
    memory = GuestMemory(scheme)
    code = memory.page()
    roots = [memory.page() * PAGE for _ in range(3)]
    memory.map(roots[0], address, code)
    memory.map(roots[1], address + 0x10_0000, code)
    memory.map(roots[2], address, code, flags=0b011)  # the kernel's own map of all memory
    expected = {(roots[0], address, code), (roots[1], address + 0x10_0000, code)}
    assert mapping(memory, code) == expected


def test_pages_with_the_same_content_are_all_of_them() -> None:
    """Many moments are looked at as pages that are kept once, and tables of them."""
    scheme, address = of_kind("4-level")
    memory = GuestMemory(scheme)
    code, root = memory.page(b"code"), memory.page() * PAGE
    memory.map(root, address, code)
    twin = memory.page()
    table = memory.table
    table[twin] = table[root // PAGE]  # a copy of the root table, as fork makes one
    tables = PageTables(memory.pages, memory.view, scheme)
    found = tables.mapping(table, np.array([code]))
    assert sorted(found.root.tolist()) == [root, twin * PAGE]


def test_memory_full_of_entries_gives_no_answer_and_ends() -> None:
    """512 ways at each of four levels would be more than fit anywhere."""
    scheme, _ = of_kind("4-level")
    memory = GuestMemory(scheme, pages=600)
    for page in range(1, 600):
        entries = [(at % 599 + 1) * PAGE | 7 for at in range(page, page + 512)]
        memory.put(page * PAGE, np.array(entries, np.uint64).tobytes())
    assert mapping(memory, *range(1, 600)) == set()


def test_no_paging_no_tables() -> None:
    assert scheme_of(registers(PAE, LONG, cr0=0)) is None
