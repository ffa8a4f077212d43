"""A guest's memory with page tables in it, laid out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from retrograde.index.symbols.pagetables import Scheme
from retrograde.isa.isa import isa_for
from retrograde.machine.gdb.targetdesc import RegisterLayout
from retrograde.machine.memorymap import RamRange
from retrograde.timeline.machineview import MachineView

PAGE = 4096
FLAGS = 0b111
"""Present, writable, for user programs."""


class GuestMemory:
    """Pages of RAM from the physical address 0 on, taken one after the other from 1 on."""

    def __init__(self, scheme: Scheme, pages: int = 64) -> None:
        self.scheme = scheme
        self.data = bytearray(pages * PAGE)
        self._free: Iterator[int] = iter(range(1, pages))

    @property
    def view(self) -> MachineView:
        layout = RegisterLayout([])
        return MachineView(isa_for("x86_64"), layout, layout, (RamRange(0, len(self.data), 0),))

    @property
    def pages(self) -> NDArray[np.uint64]:
        return np.frombuffer(bytes(self.data), np.uint64).reshape(-1, PAGE // 8)

    @property
    def table(self) -> NDArray[np.uint32]:
        return np.arange(len(self.data) // PAGE, dtype=np.uint32)

    def page(self, content: bytes = b"", at: int = 0) -> int:
        """Take a page, with this in it at byte `at`; returns its number."""
        number = next(self._free)
        self.put(number * PAGE + at, content)
        return number

    def put(self, physical: int, content: bytes) -> None:
        self.data[physical : physical + len(content)] = content

    def map(self, root: int, address: int, page: int, flags: int = FLAGS) -> None:
        """Have the space of the root table at the physical address `root` map a page."""
        table, shift = root, 12 + sum(self.scheme.bits)
        for bits in reversed(self.scheme.bits):
            shift -= bits
            at = table + (address >> shift & ((1 << bits) - 1)) * self.scheme.entry
            table = int.from_bytes(self.data[at : at + self.scheme.entry], "little") & -PAGE
            if shift == 12:
                self._enter(at, page * PAGE | flags)
            elif not table:
                table = self.page() * PAGE
                self._enter(at, table | flags)

    def _enter(self, at: int, entry: int) -> None:
        self.put(at, entry.to_bytes(self.scheme.entry, "little"))
