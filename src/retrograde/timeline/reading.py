"""Guest memory at a position: out of a window when that is certain, else from a machine.

Either way virtual addresses are translated by us where the paging is known, so that a
large range is a few copies out of RAM. Elsewhere a window follows the pages that were looked
at: QEMU says at each instruction where they lie. What is not RAM (ROM, devices) only QEMU's stub
reads, a few hundred bytes a packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from retrograde.machine.probe.page import NOWHERE
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.paging import (
    PAGE,
    AddressSpace,
    Mapped,
    NotMapped,
    can_translate,
    not_mapped,
    paging_registers,
)
from retrograde.timeline.seat import Seat
from retrograde.timeline.window import PAGES_KEPT, Window, Writes

Space = Literal["virtual", "physical"]

MOST_PAGES = 16
"""Pages of one read that a window is made to follow."""


@dataclass(frozen=True)
class Range:
    """`count` bytes of memory from `address`, in one of the two address spaces."""

    address: int
    count: int
    space: Space = "virtual"


@dataclass(frozen=True)
class _Piece:
    """`count` bytes from `address` on: in RAM from `offset`, or elsewhere (None)."""

    address: int
    count: int
    offset: int | None

    def joined(self, other: _Piece) -> _Piece | None:
        """Return this piece and the one after it as one; None when they are not one."""
        goes_on = None if self.offset is None else self.offset + self.count
        if other.offset != goes_on:
            return None
        return _Piece(self.address, self.count + other.count, self.offset)


def read_held(
    window: Window, view: MachineView, packet: bytes, position: int, wanted: Range
) -> bytes | None:
    """Return memory at `position` in `window`; None when only a machine can tell.

    Raises QemuRefused when for sure part of the range is not mapped.
    """
    writes = window.writes
    if writes is None or position >= writes.until:
        return None
    # A debugger looks at the same code again and again, a byte at a time.
    start = wanted.address % PAGE
    is_within = wanted.space == "virtual" and start + wanted.count <= PAGE
    key = wanted.address - start, view.mapping(packet)
    if is_within and key in window.quiet:
        return window.quiet[key][start : start + wanted.count]
    if wanted.space == "physical":
        return _held(writes, view, None, position, wanted)
    if not can_translate(view.isa.target):
        return _held(writes, view, _Followed(window, position), position, wanted)
    registers = view.decode(packet)
    # Mostly the page tables do not change in the window: those are read only once in it.
    space = _quiet_space(window, writes, view, registers)
    data = _held(writes, view, space, position, wanted)
    if data is not None:
        if is_within:
            _keep_quiet(window, writes, view, space, key)
        return data

    def read(physical: int, count: int) -> bytes | None:
        offset = view.offset(physical, count)
        return None if offset is None else writes.read(offset, count, position)

    return _held(writes, view, AddressSpace(registers, read), position, wanted)


def not_followed(
    window: Window, view: MachineView, position: int, wanted: Range
) -> tuple[int, ...]:
    """Return the pages whose place `window` would have to tell for it to tell this memory.

    None when they are too many: then a parked machine is faster.
    """
    if wanted.space == "physical" or not view.follows:
        return ()
    if window.writes is None or position >= window.writes.until:
        return ()
    pages = range(wanted.address - wanted.address % PAGE, wanted.address + wanted.count, PAGE)
    if len(pages) > MOST_PAGES:
        return ()
    return tuple(page for page in pages if page not in window.places)


class _Followed:
    """Virtual addresses of a position, as far as a window tells where their pages lie."""

    def __init__(self, window: Window, position: int) -> None:
        self._window = window
        self._position = position

    def translate(self, address: int) -> Mapped | None:
        """Return where `address` is, None when that is not known; raises NotMapped."""
        offset = address % PAGE
        place = self._window.places.get(address - offset)
        physical = place.at(self._position) if place else None
        if physical == NOWHERE:
            raise not_mapped(address)
        return None if physical is None else Mapped(physical + offset, PAGE - offset)


_Mapping = AddressSpace | _Followed


def _held(
    writes: Writes, view: MachineView, space: _Mapping | None, position: int, wanted: Range
) -> bytes | None:
    data = bytearray()
    for piece in _pieces(view, space, wanted):
        held = None if piece.offset is None else writes.read(piece.offset, piece.count, position)
        if held is None:
            return None
        data += held
    return bytes(data)


def _quiet_space(
    window: Window, writes: Writes, view: MachineView, registers: Mapping[str, int]
) -> AddressSpace:
    """Return how addresses are mapped by page tables that do not change in the window."""

    def read(physical: int, count: int) -> bytes | None:
        offset = view.offset(physical, count)
        return None if offset is None else writes.read_quiet(offset, count)

    key = paging_registers(registers)
    if key not in window.spaces:
        window.spaces[key] = AddressSpace(registers, read)
    return window.spaces[key]


def _keep_quiet(
    window: Window, writes: Writes, view: MachineView, space: AddressSpace, key: tuple[int, bytes]
) -> None:
    """Keep a page for the next reads if it is mapped and the same all over the window."""
    mapped = space.translate(key[0])
    offset = view.offset(mapped.physical, PAGE) if mapped else None
    page = writes.read_quiet(offset, PAGE) if offset is not None else None
    if page is not None:
        window.quiet[key] = page
        if len(window.quiet) > PAGES_KEPT:
            window.quiet.pop(next(iter(window.quiet)))


async def read_parked(
    seat: Seat, view: MachineView, registers: Mapping[str, int], wanted: Range
) -> bytes:
    """Return memory from the machine parked in `seat`.

    `registers` are those there. Raises QemuRefused when part of the range is not mapped.
    """
    ram = seat.ram.view() if view.ranges else memoryview(b"")
    whole = _Piece(wanted.address, wanted.count, None)

    def read(physical: int, count: int) -> bytes | None:
        offset = view.offset(physical, count)
        return None if offset is None else bytes(ram[offset : offset + count])

    known = wanted.space == "physical" or (bool(view.ranges) and can_translate(view.isa.target))
    space = AddressSpace(registers, read) if wanted.space == "virtual" and known else None
    try:
        pieces = list(_pieces(view, space, wanted)) if known else [whole]
    except NotMapped:
        pieces = [whole]
    data = bytearray()
    for piece in pieces:
        if piece.offset is None:
            data += await _ask(seat, piece, wanted.space)
        else:
            data += ram[piece.offset : piece.offset + piece.count]
    return bytes(data)


async def _ask(seat: Seat, piece: _Piece, space: Space) -> bytes:
    """Have QEMU's stub read a piece."""
    gdb = await seat.gdb()
    if space == "virtual":
        return await gdb.read_memory(piece.address, piece.count)
    with seat.unsettled():
        await gdb.physical_memory_mode(True)
        try:
            return await gdb.read_memory(piece.address, piece.count)
        finally:
            await gdb.physical_memory_mode(False)


def _pieces(view: MachineView, space: _Mapping | None, wanted: Range) -> Iterator[_Piece]:
    """Cut a range where it is no longer contiguous in RAM, or no longer in RAM.

    Without a `space` the range is of physical memory.
    """
    last = _Piece(wanted.address, 0, None)
    while (done := last.address + last.count) < wanted.address + wanted.count:
        piece = _piece(view, space, done, wanted.address + wanted.count - done)
        joined = last.joined(piece) if last.count else piece
        if joined is None:
            yield last
        last = joined or piece
    yield last


def _piece(view: MachineView, space: _Mapping | None, address: int, count: int) -> _Piece:
    """Return the longest piece from `address`, of at most `count` bytes, seen at once."""
    physical, room = address, count
    if space is not None:
        mapped = space.translate(address)
        if mapped is None:
            return _Piece(address, min(count, PAGE - address % PAGE), None)
        physical, room = mapped
    offset, more = view.place(physical)
    return _Piece(address, min(count, room, more), offset)
