"""What the machine is like where breakpoints are hit, kept by the probe as it passes by.

At a hit it keeps registers and the pages of memory that they point to, so that whoever stops
at many hits needs no machine at each. In the middle of a block of translated code not all
registers are up to date: `Kept.names` must be some that are (docs/probe.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retrograde.machine.probe.page import NOWHERE, PAGE_BYTES, RANGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrograde.machine.probe.probe import Probe

KEPT_BYTES = 1 << 11
"""Bytes of registers that a moment has, at most."""

PAGES_A_MOMENT = 4
"""Pages there is room for; most are the same at the next hit, and are kept once."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be kept at each hit, of the first hits there are.

    `names` are registers, of `size` bytes together; the first `pointers` of them may point to
    memory that will be looked at. So may `seen`, virtual addresses. `ram` are ranges of
    physical addresses, first and last. With `chosen`, ascending positions, moments are kept at
    these alone.
    """

    names: tuple[str, ...]
    size: int
    pointers: int
    ram: tuple[tuple[int, int], ...]
    seen: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """What the probe kept at a position.

    `pc` is gdb's, `after` gdb's at the next position, None where that is not known, and
    `before` the linear address that the instruction before was translated at, where it ran
    unless its page is mapped twice. `registers` are those asked for, one after the other as
    in a `g` packet; `pages` are of virtual memory, by address.
    """

    position: int
    pc: int
    before: int
    after: int | None
    registers: bytes
    pages: Mapping[int, bytes] = field(default_factory=dict)


def moments_of(probe: Probe, kept: Kept) -> Iterator[Moment]:
    """Yield the moments that `probe` has kept since it was armed for `kept`."""
    rows, registers, pages = probe.moments()
    contents: dict[int, bytes] = {}
    for number, row in enumerate(rows):
        held = {}
        for vaddr, place in row["page"][: int(row["pages"])].tolist():
            if place not in contents:
                contents[place] = pages[place].tobytes()
            held[vaddr] = contents[place]
        after = int(row["after"])
        yield Moment(
            int(row["position"]),
            int(row["pc"]),
            int(row["before"]),
            None if after == NOWHERE else after,
            registers[number * kept.size : (number + 1) * kept.size].tobytes(),
            held,
        )


def tables_of(kept: Kept) -> dict[str, NDArray[Any]]:
    """Return the contents of the probe's tables by name."""
    seen = sorted({at - at % PAGE_BYTES for at in kept.seen})
    return {
        "chosen": np.array(kept.chosen, np.uint64),
        "ram": np.array(list(kept.ram), RANGE),
        "seen": np.array(seen, np.uint64),
    }
