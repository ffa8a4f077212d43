"""Code of two runs, found to be the same wherever it was mapped."""

from __future__ import annotations

import numpy as np

from retrograde.index.compare.codepages import CodePages

HERE, THERE, LIBRARY, OTHER = 0x400000, 0x555500000000, 0x7F0000000000, 0x7E0000123000


def addresses(base: int, *offsets: int) -> np.ndarray:
    return np.array([base + offset for offset in offsets], np.uint64)


def test_nothing_is_known_at_first() -> None:
    assert CodePages().equal(addresses(HERE, 0, 4), addresses(HERE, 0, 4)) == 0


def test_pages_moved_as_one_that_is_known_are_learned() -> None:
    pages = CodePages()
    pages.learn(HERE, THERE)
    offsets = (0, 4, 0x1000, 0x7008, 4)
    assert pages.equal(addresses(HERE, *offsets), addresses(THERE, *offsets)) == len(offsets)
    back = pages.as_ours(addresses(THERE, 0x7010, 0x9000))
    assert back.tolist() == [HERE + 0x7010, THERE + 0x9000 | 1 << 63]


def test_what_differs_ends_it_and_is_not_learned() -> None:
    pages = CodePages()
    pages.learn(HERE, THERE)
    ours, theirs = addresses(HERE, 0, 4, 0x1000), addresses(THERE, 0, 8, 0x1000)
    assert pages.equal(ours, theirs) == 1
    assert pages.as_ours(addresses(THERE, 0x1000))[0] >= 1 << 63


def test_another_mapping_is_unknown_until_it_is_learned() -> None:
    pages = CodePages()
    pages.learn(HERE, THERE)
    ours = np.concatenate([addresses(HERE, 0), addresses(LIBRARY, 0x10, 0x1010)])
    theirs = np.concatenate([addresses(THERE, 0), addresses(OTHER, 0x10, 0x1010)])
    assert pages.equal(ours, theirs) == 1
    assert pages.may_be(int(ours[1]), int(theirs[1]))
    assert not pages.may_be(int(ours[1]), int(theirs[1]) + 4)
    pages.learn(int(ours[1]), int(theirs[1]))
    assert pages.equal(ours, theirs) == 3


def test_a_page_moved_otherwise_than_before_is_no_longer_the_same() -> None:
    pages = CodePages()
    pages.learn(HERE, THERE)
    pages.learn(LIBRARY, OTHER)
    assert pages.equal(addresses(LIBRARY, 0), addresses(LIBRARY + THERE - HERE, 0)) == 0
    assert pages.is_moved(HERE, HERE)
    assert pages.is_moved(3, 3 + THERE - HERE)
    assert not pages.is_moved(3, 4)
