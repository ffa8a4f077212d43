"""Records of accesses taken apart, against bytes counted one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrograde.machine.probe import record as probe_record
from retrograde.machine.probe.page import MOST_BYTES, NOWHERE, PAGE_BYTES, RECORD, RecordFlag
from retrograde.timeline.search import hit_of

NEAR, FAR = 0x5000, 0x2000
"""Frames of the page that accesses begin in and of the next."""


@st.composite
def accesses(draw):
    """A record near the end of a page, of any size and byte order."""
    size = draw(st.sampled_from((1, 2, 4, 8, 16)))
    offset = draw(st.integers(PAGE_BYTES - 20, PAGE_BYTES - 1))
    data = draw(st.binary(min_size=size, max_size=size)).ljust(MOST_BYTES, b"\0")
    flags = RecordFlag.ACCESS | draw(st.sampled_from((0, RecordFlag.BIG_ENDIAN)))
    crosses = offset + size > PAGE_BYTES
    beyond = FAR if crosses else NOWHERE
    vaddr = 0x7000 + offset
    return (1, 2, vaddr, NEAR + offset, beyond, list(data), size, flags, 0)


many = st.lists(accesses(), min_size=1, max_size=8).map(lambda rows: np.array(rows, RECORD))


@given(many)
def test_pieces_are_the_bytes_where_they_lie(records):
    parts = probe_record.pieces(records)
    found = [
        (int(owner), int(paddr) + at, int(data[at]))
        for owner, paddr, size, data in zip(*parts, strict=True)
        for at in range(size)
    ]
    hits = list(map(hit_of, records))
    expected = [
        (number, place, byte)
        for number, hit in enumerate(hits)
        for place, byte in zip(hit.placed, hit.data, strict=True)
    ]
    assert found == expected
    assert all(
        place == (NEAR if hit.address + at < 0x8000 else FAR) + (hit.address + at) % PAGE_BYTES
        for hit in hits
        for at, place in enumerate(hit.placed)
    )


@given(many, st.sampled_from((NEAR + PAGE_BYTES, FAR)), st.integers(-24, 24), st.integers(1, 20))
def test_what_touches_a_range_has_a_byte_in_it(records, base, start, count):
    inside = range(base + start, base + start + count)
    found = probe_record.touches(records, inside[0], inside[-1])
    assert found.tolist() == [bool(set(hit_of(one).placed) & set(inside)) for one in records]


@given(many)
def test_numbers_have_the_order_of_the_access(records):
    low, high = probe_record.numbers_of(records)
    for record, lower, higher in zip(records, low.tolist(), high.tolist(), strict=True):
        order = "big" if record["flags"] & RecordFlag.BIG_ENDIAN else "little"
        number = int.from_bytes(record["data"][: record["size"]].tobytes(), order)
        assert number == probe_record.number_of(record) == lower | higher << 64


def test_what_lies_nowhere_touches_nothing():
    row = (1, 2, 0x7FFC, NOWHERE, NOWHERE, [0] * MOST_BYTES, 8, RecordFlag.NO_PADDR, 0)
    records = np.array([row], RECORD)
    assert not probe_record.touches(records, 0, 1 << 63).any()
    assert hit_of(np.array([(*row[:7], RecordFlag.ACCESS, 0)], RECORD)[0]).placed == ()
