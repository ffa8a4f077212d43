"""A program is found where its code lies as in its file, and nowhere else."""

from __future__ import annotations

import random

import pytest

from retrograde.index.symbols.pagetables import PageTables, Scheme
from retrograde.index.symbols.programplace import Piece, Place, Program, stays
from tests.index.guestmemory import PAGE, GuestMemory

SCHEME = Scheme(8, (9, 9, 9, 9), 0x000F_FFFF_FFFF_F000)
BASE = 0x7F00_1234_5000
LINKED = 0x1000


def code(pages: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(pages * PAGE)


def pieces(content: bytes, size: int = 64) -> list[Piece]:
    return [
        Piece(LINKED + at + 16, content[at + 16 : at + 16 + size])
        for at in range(0, len(content), PAGE)
    ]


def put(memory: GuestMemory, content: bytes, root: int, base: int = BASE) -> list[int]:
    """Have a space map a program; returns its pages."""
    pages = []
    for at in range(0, len(content), PAGE):
        pages.append(memory.page(content[at : at + PAGE]))
        memory.map(root, base + LINKED + at, pages[-1])
    return pages


def places(memory: GuestMemory, wanted: list[Piece]) -> list[Place]:
    tables = PageTables(memory.pages, memory.view, SCHEME)
    return Program(wanted, memory.pages).places(tables, memory.table)


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory(SCHEME, pages=256)


def test_two_processes_each_with_its_base(memory: GuestMemory) -> None:
    content = code(4)
    roots = [memory.page() * PAGE for _ in range(2)]
    pages = put(memory, content, roots[0])
    for at, page in enumerate(pages):
        memory.map(roots[1], BASE + 0x5_0000 + LINKED + at * PAGE, page)
    memory.page(content[:PAGE])  # the file's first page once more, mapped by nobody
    expected = [Place(roots[0], BASE), Place(roots[1], BASE + 0x5_0000)]
    assert places(memory, pieces(content)) == expected


def test_a_program_that_is_only_partly_in_memory(memory: GuestMemory) -> None:
    content, root = code(8), memory.page() * PAGE
    put(memory, content[: 2 * PAGE], root)
    assert places(memory, pieces(content)) == [Place(root, BASE)]


def test_a_program_that_shares_some_code_is_another(memory: GuestMemory) -> None:
    """A library linked into both, say: half of it equal, at the same distances."""
    shared, root = code(4, seed=2), memory.page() * PAGE
    put(memory, shared + code(4, seed=3), root)
    assert places(memory, pieces(shared + code(4, seed=4))) == []


def test_code_that_a_debugger_patched_is_still_known(memory: GuestMemory) -> None:
    content, root = code(20), memory.page() * PAGE
    pages = put(memory, content, root)
    memory.put(pages[3] * PAGE + 20, b"\xcc")
    assert places(memory, pieces(content)) == [Place(root, BASE)]


def test_the_same_code_of_another_build(memory: GuestMemory) -> None:
    """One piece of few that is another counts: the build id is a piece like others."""
    content, root = code(3), memory.page() * PAGE
    put(memory, content, root)
    other = bytearray(content)
    other[16:80] = code(1, seed=9)[:64]
    assert places(memory, pieces(bytes(other))) == []


@pytest.mark.parametrize(
    "piece", [Piece(0xFF0, bytes(range(64))), Piece(0x10, bytes(64)), Piece(0x10, b"")]
)
def test_pieces_that_say_nothing_are_left_out(memory: GuestMemory, piece: Piece) -> None:
    root = memory.page() * PAGE
    memory.map(root, BASE, memory.page())
    assert places(memory, [piece]) == []


def test_stays_are_told_by_the_moments_around(memory: GuestMemory) -> None:
    content, root = code(2), memory.page() * PAGE
    empty = memory.pages.copy()
    put(memory, content, root)
    both = GuestMemory(SCHEME, pages=512)
    both.data[: empty.nbytes] = empty.tobytes()
    both.data[empty.nbytes :] = bytes(memory.data)
    count = len(empty)
    gone, there = both.table[:count], both.table[count:]
    tables = PageTables(both.pages, memory.view, SCHEME)
    program = Program(pieces(content), both.pages)
    moments = [(10, gone), (20, there), (30, there), (40, gone), (50, there)]
    place = Place(root, BASE)
    assert stays(program, tables, moments, 60) == [(place, 11, 40), (place, 41, 61)]
