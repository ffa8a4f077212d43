"""What each instruction of the guest `wide` accesses, told without QEMU's help.

The image says it itself, in a table made beside the code (guests/accesses.inc.S). Single
steps through a fresh replay without a probe give the registers, so the addresses, and the
bytes at the border before and after. That a store changes nothing else is asserted here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from retrograde.errors import Divergence, InternalError
from retrograde.isa.isa import ByteOrder, isa_for
from retrograde.machine.probe.request import Breakpoint
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.search import Stops
from retrograde.timeline.timeline import Timeline
from retrograde.verify.oracle import Oracle, Read, Watched

AROUND: Final = 128
"""Bytes before and after the border that are looked at; no access is farther away."""

BORDERS: Final = {"x86_64": 0x40001000, "aarch64": 0x80001000, "ppc64": 0x401000}
"""Where each guest's pages meet."""

_MARK: Final = b"WIDE-ACCESSES-ARE".ljust(24, b"\0")
_READ, _WRITE, _COUNTED = 1, 2, 4


@dataclass(frozen=True)
class Entry:
    """An instruction at `pc` accesses `size` bytes from `register` plus `displacement`.

    Each access is of `unit` bytes, 0 where they differ; with `is_counted` there is none while
    the count of string instructions is 0.
    """

    pc: int
    register: str
    displacement: int
    size: int
    is_store: bool
    is_counted: bool
    unit: int


@dataclass(frozen=True)
class Touch:
    """Virtual memory from `first` to before `stop`, loaded or stored at `position` for sure."""

    position: int
    first: int
    stop: int
    unit: int
    is_store: bool

    def overlaps(self, first: int, stop: int) -> bool:
        """Whether any byte from `first` to before `stop` is accessed."""
        return first < self.stop and self.first < stop


@dataclass(frozen=True)
class Truth:
    """What happened at positions from `start` to before `stop`.

    `memory` has, for these and `stop` itself, the bytes from AROUND before the border on.
    """

    start: int
    stop: int
    border: int
    touches: Sequence[Touch]
    memory: Mapping[int, bytes]

    def bytes_at(self, position: int, first: int, stop: int) -> bytes:
        """Return virtual memory from `first` to before `stop` at `position`."""
        low = self.border - AROUND
        return self.memory[position][first - low : stop - low]


def table_of(recording: Recording) -> list[Entry]:
    """Return the table in the guest's image; raises InternalError where there is none."""
    target = recording.manifest.machine.target
    order: ByteOrder = isa_for(target).byte_order
    [image] = recording.manifest.inputs
    data = recording.input_path(image.name).read_bytes()
    at = data.find(_MARK)
    if at < 0:
        raise InternalError(f"{recording.name} is no recording of the guest `wide`.")
    entries, at = [], at + len(_MARK)
    row = struct.Struct(f"{'<' if order == 'little' else '>'}Q8shHBBxx")
    while int.from_bytes(data[at : at + 8], order):
        pc, name, displacement, size, kind, unit = row.unpack_from(data, at)
        register = name.rstrip(b"\0").decode()
        entries += [
            Entry(pc, register, displacement, size, wanted == _WRITE, bool(kind & _COUNTED), unit)
            for wanted in (_READ, _WRITE)
            if kind & wanted
        ]
        at += row.size
    return entries


async def rounds_of(timeline: Timeline) -> list[int]:
    """Return where the guest's rounds begin; in each the same is one byte farther on."""
    first = Breakpoint(table_of(timeline.recording)[0].pc)
    hits = await timeline.all_hits(Stops(breakpoints=(first,)), 0, timeline.end)
    return [hit.position for hit in hits]


async def truth_of(recording: Recording, qemu: Qemu, start: int, stop: int) -> Truth:
    """Step from `start` to `stop` in a fresh replay; some thousand positions a few seconds.

    Raises Divergence where memory changes that no instruction says it stores to.
    """
    border, entries = BORDERS[recording.manifest.machine.target], table_of(recording)
    look = Read(border - AROUND, 2 * AROUND)
    reads = dict.fromkeys(range(start, stop + 1), (look,))
    facts = LogFacts.read(recording.log())
    async with await Oracle.start(recording, qemu, facts) as oracle:
        walk = await oracle.walk(start, stop, reads, digest=False)
        registers = {at: oracle.decode(state.packet) for at, state in walk.states.items()}
    memory = {at: state.memory[look] or bytes(look.count) for at, state in walk.states.items()}
    touches = []
    for position in range(start, stop):
        pc, values = walk.states[position].pc, registers[position]
        here = [
            _touch(one, position, values)
            for one in entries
            if one.pc == pc and not (one.is_counted and values["rcx"] == 0)
        ]
        _require(position, here, border, memory)
        touches += here
    return Truth(start, stop, border, touches, memory)


async def told_by_qemu(
    recording: Recording, qemu: Qemu, truth: Truth, watched: Watched
) -> set[int]:
    """Return at which positions a watchpoint of QEMU's own stub is met, by single steps.

    No interrupt may be taken in between. Of those that stop before the access, as Arm's do,
    the oracle is not sure, but it is of no others.
    """
    facts = LogFacts.read(recording.log())
    async with await Oracle.start(recording, qemu, facts) as oracle:
        walk = await oracle.walk(truth.start, truth.stop, {}, digest=False, watch=watched)
    return {at for at in walk.accessed | walk.unsure if at < truth.stop}


def _touch(entry: Entry, position: int, registers: Mapping[str, int]) -> Touch:
    first = registers[entry.register] + entry.displacement
    return Touch(position, first, first + entry.size, entry.unit, entry.is_store)


def _require(
    position: int, touches: Sequence[Touch], border: int, memory: Mapping[int, bytes]
) -> None:
    """Raise Divergence where a byte changed that none of `touches` stores to."""
    before, after = memory[position], memory[position + 1]
    for at, (old, new) in enumerate(zip(before, after, strict=True), border - AROUND):
        stored = any(one.is_store and one.first <= at < one.stop for one in touches)
        if old != new and not stored:
            raise Divergence(f"At {position:_} {at:#x} changes, and nothing stores there.")
