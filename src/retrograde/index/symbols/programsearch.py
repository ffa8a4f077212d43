"""Where user programs were mapped in a recording: at the cursor, and at all checkpoints.

A process that lived between two checkpoints is not found at them (see `programcalls`). Known on
x86, whose page tables are all in RAM and of a few kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrograde.index.symbols.pagetables import PageTables, Scheme, root_of, scheme_of
from retrograde.index.symbols.programplace import Piece, Place, Program, Stay, stays
from retrograde.isa.isa import X86
from retrograde.timeline.pages import PAGE, Table
from retrograde.timeline.timeline import Timeline


@dataclass(frozen=True)
class Wanted:
    """A program to be found: its entry point where it was linked, and pieces of it.

    One that is not `movable` is nowhere else.
    """

    entry: int
    pieces: Sequence[Piece]
    movable: bool = True


@dataclass(frozen=True)
class Here:
    """The places of a program at one position, and the root of the space that is current."""

    places: Sequence[Place]
    root: int

    @property
    def current(self) -> Place | None:
        """The place in the current address space, if the program is there."""
        return next((place for place in self.places if place.root == self.root), None)


def can_search(timeline: Timeline) -> bool:
    """Whether programs can be looked for in this machine."""
    ram = timeline.recording.manifest.ram
    return timeline.view.isa.target in X86 and ram.shared and bool(ram.seen)


async def places_here(timeline: Timeline, pieces: Sequence[Piece]) -> Here:
    """Return where a program with these pieces is mapped at the cursor."""
    registers = await timeline.registers()
    scheme = scheme_of(registers)
    if scheme is None:
        return Here([], -1)

    def look(ram: NDArray[np.uint8]) -> list[Place]:
        pages = ram.view(np.uint64).reshape(-1, PAGE // 8)
        program = Program(pieces, pages)
        if not len(program.slots):
            return []
        tables = PageTables(pages, timeline.view, scheme)
        return program.places(tables, np.arange(len(pages), dtype=np.uint32))

    return Here(await timeline.in_ram(look), root_of(registers))


async def stays_at_checkpoints(timeline: Timeline, programs: Sequence[Wanted]) -> list[list[Stay]]:
    """Return where programs were mapped at any checkpoint."""
    return await asyncio.to_thread(_by_checkpoints, timeline, programs)


def _by_checkpoints(timeline: Timeline, wanted: Sequence[Wanted]) -> list[list[Stay]]:
    store = timeline.store
    pages = store.pages.filled
    programs = [Program(one.pieces, pages) for one in wanted]
    found: list[list[Stay]] = [[] for _ in programs]
    if not any(len(program.slots) for program in programs):
        return found
    by_scheme: dict[Scheme, list[tuple[int, Table]]] = {}
    for checkpoint in store.checkpoints:
        if scheme := scheme_of(timeline.view.decode(checkpoint.registers.encode())):
            moment = (checkpoint.position, store.table(checkpoint))
            by_scheme.setdefault(scheme, []).append(moment)
    for scheme, moments in by_scheme.items():
        tables = PageTables(pages, timeline.view, scheme)
        for stay, program in zip(found, programs, strict=True):
            stay += stays(program, tables, moments, timeline.end)
    return found
