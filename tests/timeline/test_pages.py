from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograde.timeline.pages import PAGE, PageStore

PAGES = 300  # more than one chunk of comparison


def opened(folder: Path) -> PageStore:
    (folder / "pages").touch()
    with (folder / "pages").open("r+b") as file:
        return PageStore(file, PAGES * PAGE)


def ram_of(contents: dict[int, int]) -> np.ndarray:
    ram = np.zeros(PAGES * PAGE, dtype=np.uint8)
    for page, value in contents.items():
        ram[page * PAGE + value % PAGE] = value
    return ram


ALL = np.ones(2, dtype=np.bool_)  # 300 pages are two MiB

contents = st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 255), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(contents, min_size=1, max_size=6), st.randoms())
def test_every_ram_comes_back_from_any_other(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[dict[int, int]], random
) -> None:
    store = opened(tmp_path_factory.mktemp("pages"))
    rams = [ram_of(entry) for entry in sequence]
    table, tables = store.empty_table(), []
    for ram in rams:
        table = store.put(ram, table, ALL)
        tables.append(table)
    into = np.full(PAGES * PAGE, 0xAA, np.uint8)
    for index in random.choices(range(len(rams)), k=8):
        store.get(tables[index], into, ALL)
        assert np.array_equal(into, rams[index])
        at = random.randrange(PAGES * PAGE - 1)
        count = random.randrange(1, min(3 * PAGE, PAGES * PAGE - at) + 1)
        assert store.read(tables[index], at, count) == rams[index][at : at + count].tobytes()
    store.close()


def test_unchanged_and_zero_pages_take_no_room(tmp_path: Path) -> None:
    store = opened(tmp_path)
    empty = store.size
    ram = ram_of({3: 7, 5: 9})
    first = store.put(ram, store.empty_table(), ALL)
    assert store.size == empty + 2 * PAGE
    second = store.put(ram, first, ALL)
    assert store.size == empty + 2 * PAGE
    assert np.array_equal(first, second)
    store.put(ram_of({}), second, ALL)
    assert store.size == empty + 2 * PAGE


def test_a_store_reopens_with_what_it_held(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ram = ram_of({0: 1, 299: 2})
    table = store.put(ram, store.empty_table(), ALL)
    store.close()
    again = opened(tmp_path)
    into = np.ones(PAGES * PAGE, np.uint8)
    again.get(table, into, ALL)
    assert np.array_equal(into, ram)
    again.close()


def test_memory_that_was_never_allocated_is_zero_and_stays_so(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ram = ram_of({3: 7, 290: 9})
    full = store.put(ram, store.empty_table(), ALL)
    absent = np.array([True, False])
    table = store.put(ram, full, absent)
    assert table[3] == full[3]
    assert not table[256:].any()
    delta = store.difference(full, ram_of({3: 7}), absent)
    assert list(delta.numbers) == [290]
    into = ram_of({3: 1, 280: 2})
    store.get(table, into, absent)
    assert into[280 * PAGE + 2] == 2  # said to have no memory: not looked at
    store.close()
