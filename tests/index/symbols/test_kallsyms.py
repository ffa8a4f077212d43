"""The kernel's own symbols are found wherever they lie, and nothing else is taken for them."""

from __future__ import annotations

import itertools
import random
import string
from typing import Any

import pytest

from retrograde.index.symbols.kallsyms import Symbol, find_symbols
from tests.index.kallsyms_writer import tables

BASE = 0xFFFFFFFF_A5C0_0000
FORMATS = [
    {"layout": layout, "percpu": percpu, "order": order, "word": word}
    for layout, percpu, order, word in itertools.product(
        ("before 6.4", "since 6.4"), (False, True), ("little", "big"), (8, 4)
    )
]


def kernel(seed: int, base: int, *, percpu: bool, count: int = 1500) -> list[Symbol]:
    """Symbols with names as kernels have them, one of them too long for one byte's length."""
    chance = random.Random(seed)
    letters = string.ascii_lowercase + "_" + string.digits

    def name() -> str:
        words = ("".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(3))
        return "_".join(words)

    address = base
    found = [Symbol(40 * n, "A", f"percpu_{name()}") for n in range(30)] if percpu else []
    for _ in range(count):
        found.append(Symbol(address, chance.choice("TtDdBbRr"), name()))
        address += chance.choice((0, 16, 16, 48, 4096))
    found[700] = found[700]._replace(name="_".join(name() for _ in range(12)))
    return found


def memory(*pieces: bytes, seed: int = 0) -> bytes:
    """RAM with `pieces` at multiples of 8, between bytes of all kinds."""
    chance = random.Random(seed)
    ram = bytearray(chance.randbytes(4096))
    for piece in pieces:
        ram += piece
        ram += bytes(-len(ram) % 8) + chance.randbytes(800)
        # What looks like the tokens for digits, and is none.
        ram += b"".join(bytes([digit, 0]) for digit in range(256)) + bytes(1000)
    return bytes(ram)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: "-".join(map(str, form.values())))
def test_found_in_every_format(form: dict[str, Any]) -> None:
    base = BASE if form["word"] == 8 else 0xC010_0000
    symbols = kernel(1, base, percpu=form["percpu"])
    ram = memory(tables(symbols, base, **form))
    assert list(find_symbols(ram)) == [symbols]


@pytest.mark.parametrize("count", [1024, 1025, 1279, 1280, 1281, 5000])
@pytest.mark.parametrize("layout", ["before 6.4", "since 6.4"])
def test_found_for_any_number_of_symbols(count: int, layout: Any) -> None:
    symbols = kernel(count, BASE, percpu=False, count=count)
    assert list(find_symbols(memory(tables(symbols, BASE, layout=layout)))) == [symbols]


def test_all_copies_are_found() -> None:
    first, second = kernel(1, BASE, percpu=True), kernel(2, BASE + 0x200_0000, percpu=True)
    ram = memory(
        tables(first, BASE, percpu=True),
        tables(second, BASE + 0x200_0000, percpu=True, layout="since 6.4"),
    )
    assert list(find_symbols(ram)) == [first, second]


@pytest.mark.parametrize("layout", ["before 6.4", "since 6.4"])
def test_damaged_tables_are_no_kernel(layout: Any) -> None:
    """Whichever part is overwritten: no symbols rather than wrong addresses."""
    symbols = kernel(3, BASE, percpu=True)
    whole = tables(symbols, BASE, percpu=True, layout=layout)
    for start in range(0, len(whole) - 600, len(whole) // 40):
        spoilt = whole[:start] + random.Random(start).randbytes(600) + whole[start + 600 :]
        for found in find_symbols(memory(spoilt)):
            assert [symbol.address for symbol in found] == [s.address for s in symbols]


@pytest.mark.parametrize("stop", range(0, 40_000, 4441))
def test_tables_cut_off_by_the_end_of_memory(stop: int) -> None:
    symbols = kernel(4, BASE, percpu=False)
    whole = tables(symbols, BASE)
    found = list(find_symbols(bytes(64) + whole[:stop]))
    assert found == ([symbols] if stop >= len(whole) else [])


def test_memory_without_a_kernel() -> None:
    assert list(find_symbols(b"")) == []
    assert list(find_symbols(bytes(1 << 20))) == []
    assert list(find_symbols(memory())) == []
    assert list(find_symbols(b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00" * 2000)) == []
