"""Names for addresses: the table `symbols`, and looking addresses up in it.

The kernel's are those of a file the user gives, moved to where the kernel ran; else those that
the guest's kernel keeps in its own memory (see `kallsyms`); else those of the program the
machine was started with. Symbols of user programs are added, where processes had them.
Memory is that of checkpoints: no machine is run where a kernel is found at the last one.
"""

from __future__ import annotations

import contextlib
import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import RetrogradeError, UsageError
from retrograde.index.symbols.entrypoints import handlers, moved_by
from retrograde.index.symbols.kallsyms import ANCHORS, Symbol
from retrograde.index.symbols.kernelplace import (
    Memory,
    anchors_of,
    anchors_told,
    last_memory,
    likeliest_table,
    was_in_memory,
)
from retrograde.index.symbols.pagetables import root_of
from retrograde.index.symbols.programcalls import stays_of
from retrograde.index.symbols.programplace import Piece, Stay
from retrograde.index.symbols.programsearch import Wanted, can_search
from retrograde.index.symbols.symbolfile import SymbolFile, read_symbol_file
from retrograde.index.symbols.symbolrows import Row, columns_of, rows_in, rows_of
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.views import ROOT_MASK
from retrograde.machine.elfkind import is_elf, require_program_for
from retrograde.portal import LoopThread
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from retrograde.visible import visible

Progress = Callable[[int], None]
Has = Callable[[bytes], bool]
"""Whether some bytes were in the guest's memory."""

MEMORY: Final = "the guest's memory"
_SAME_ENOUGH: Final = 0.9
"""Share of symbols at equal addresses that two tables of one kernel have at least: some
names stand for several functions."""
_REACH: Final = 1 << 20
"""Bytes after a symbol of unknown size that may still belong to it."""
_MAKER_LIMIT: Final = 4000
_BETWEEN: Final = "; "
_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True)
class Names:
    """Symbols by address, one for each address."""

    addresses: Sequence[int]
    sizes: Sequence[int]
    names: Sequence[str]

    def lookup(self, address: int) -> str | None:
        """Return `name` or `name+0x12` for an address; None where there is no symbol."""
        at = bisect_right(self.addresses, address) - 1
        if at < 0:
            return None
        offset = address - self.addresses[at]
        if offset >= (self.sizes[at] or _REACH):
            return None
        return f"{self.names[at]}+{offset:#x}" if offset else self.names[at]


@dataclass(frozen=True)
class Symbols:
    """Names that hold in all address spaces, and those of programs in spaces, by root table."""

    everywhere: Names
    programs: Mapping[int, Sequence[tuple[range, Names]]]

    @classmethod
    def load(cls, store: IndexStore) -> Symbols:
        """Read the table `symbols`; empty where it was not built."""
        with store.connect(("symbols",)) as connection:
            rows = connection.execute(
                "SELECT space, first, last, address, size, name FROM symbols WHERE main "
                "ORDER BY space, first, last, address"
            ).fetchall()
        everywhere, programs = Names((), (), ()), defaultdict(list)
        for (space, first, last), group in groupby(rows, itemgetter(0, 1, 2)):
            names = Names(*zip(*(row[3:] for row in group), strict=True))
            if space is None:
                everywhere = names
            else:
                programs[space].append((range(first, last), names))
        return cls(everywhere, programs)

    @classmethod
    def of(cls, recording: Recording) -> Symbols:
        """Return a recording's symbols, made where there are none yet; empty where that fails.

        For recordings with checkpoints: one without would be replayed.
        """
        with contextlib.suppress(RetrogradeError, OSError):
            store = IndexStore(recording)
            build_symbols(store, recording)
            return cls.load(store)
        return cls(Names((), (), ()), {})

    def lookup(self, address: int, position: int = -1, space: int | None = None) -> str | None:
        """Return `name` or `name+0x12` for an address; None where there is no symbol.

        Programs have theirs at a position and in an address space, that of the table `calls`.
        """
        found = self.everywhere.lookup(address)
        if found is None and space is not None:
            for span, names in self.programs.get(space & ROOT_MASK, ()):
                if position in span and (found := names.lookup(address)):
                    break
        return found


async def name_here(timeline: Timeline, symbols: Symbols) -> str | None:
    """Return the name of the code that runs at the cursor."""
    space = root_of(await timeline.registers())
    return symbols.lookup(await timeline.pc(), timeline.position, space)


def build_symbols(
    store: IndexStore,
    recording: Recording,
    files: Sequence[Path] = (),
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Write the table `symbols` from `files` and what the recording has; says what is wrong.

    What earlier files gave stays, but a kernel's replace those of another and a program's those
    of one of its name. Does nothing where the table is there and has all of the files. A
    recording without checkpoints gets them, which takes a replay: `progress` is told positions.
    Raises UsageError for a file that cannot be used, and as `Timeline.open` does.
    """
    makers = {_digest(file): file for file in files}
    made_by = _parts(store.maker("symbols"))
    is_there = bool(store.done("symbols"))
    if is_there and made_by and set(makers) <= set(made_by):
        return []
    given = [_read(file, recording) for file in files]
    rows = _rows(store) if is_there else []
    built = _Built(recording, given, rows, progress)
    lost = [] if is_there else [one for one in made_by if one != MEMORY and one not in makers]
    kernel = next((maker for maker, one in zip(makers, given, strict=True) if one.is_kernel), None)
    first = kernel or (made_by[0] if is_there else MEMORY)
    kept = made_by[1:] if is_there else []
    store.drop("symbols")
    store.claim("symbols", _joined([first, *kept, *(one for one in makers if one != first)]))
    store.write("symbols", 0, recording.end + 1, columns_of(built.rows))
    if lost:
        names = ", ".join(lost)
        built.troubles.append(f"The symbols of {names} were lost; --symbols takes them again.")
    return built.troubles


class _Built:
    """The rows of the table, and what is wrong with the files they come from."""

    def __init__(
        self,
        recording: Recording,
        given: Sequence[SymbolFile],
        rows: Sequence[Row],
        progress: Progress | None,
    ) -> None:
        self.troubles: list[str] = []
        self._recording, self._given, self._progress = recording, given, progress
        named = {one.name for one in given}
        self.rows = [row for row in rows if row.module is None or row.module not in named]
        kernels = [one for one in given if one.is_kernel]
        if kernels or not rows:
            self._build_kernel(kernels[-1:])
        programs = [one for one in given if not one.is_kernel]
        if programs:
            self._add_programs(programs)

    def _build_kernel(self, given: Sequence[SymbolFile]) -> None:
        recording = self._recording
        memory, has = last_memory(recording, self._progress)
        found = _kernel_in(memory)
        if not found.is_known and recording.manifest.ram.seen:
            found = _kernel_at_end(recording)
        kernel = found.symbols
        self.rows = [row for row in self.rows if row.module is not None]
        file = given[0] if given else None
        if file is None and not kernel:
            file = None if self._given else _of_inputs(recording)
            if file is None:
                self.troubles += [] if self._given else [_NO_SYMBOLS]
                return
        if file is None:
            self.rows += rows_of(kernel, {})
            return
        slide = _slide(file, found)
        if recording.manifest.ram.seen:
            self.troubles += _check(file, kernel, has, slide)
        # What is below the image, the per-cpu section's, are offsets and no addresses.
        image = min((one.address for one in file.symbols if one.type in "Tt"), default=0)

        def moved(address: int) -> int:
            return address + slide & _WORD if address >= image else address

        symbols = [one._replace(address=moved(one.address)) for one in file.symbols]
        sizes = {moved(address): size for address, size in file.sizes.items()}
        self.rows += rows_of(symbols, sizes)

    def _add_programs(self, programs: Sequence[SymbolFile]) -> None:
        stays, has = _search(self._recording, programs, self._progress)
        for program, found in zip(programs, stays, strict=True):
            if found:
                self.rows += rows_in(program, found)
            elif found is None or not (program.program and program.program.is_movable):
                # It is where it was linked, in whatever space; a kernel has no such addresses.
                self.rows += rows_of(program.symbols, program.sizes, program.name)
                if program.note and not has(program.note):
                    self.troubles.append(_strange(program))
            else:
                self.troubles.append(
                    f"{program.name} was not seen mapped in any process: its names are not used."
                )


@dataclass(frozen=True)
class _Kernel:
    """What the kernel that ran says of itself: symbols, anchors, and where it takes exceptions."""

    symbols: Sequence[Symbol]
    anchors: Mapping[str, int]
    handlers: Mapping[str, int]

    @property
    def is_known(self) -> bool:
        """Whether its memory tells of it."""
        return bool(self.symbols or self.anchors)


def _kernel_in(memory: Memory) -> _Kernel:
    kernel = likeliest_table(memory)
    return _Kernel(kernel, anchors_of(kernel) or anchors_told(memory), {})


def _kernel_at_end(recording: Recording) -> _Kernel:
    """Return what is known of the kernel at the end: there may be few checkpoints."""

    async def search() -> _Kernel:
        async with await Timeline.open(recording, at=recording.end, replayers=1) as timeline:

            def find(ram: NDArray[np.uint8]) -> _Kernel:
                return _kernel_in(Memory(ram.tobytes(), timeline.store.checkpoints))

            found = await timeline.in_ram(find)
            return replace(found, handlers=await handlers(timeline))

    loop = LoopThread()
    try:
        return loop.run(search())
    finally:
        loop.close()


def _search(
    recording: Recording, programs: Sequence[SymbolFile], progress: Progress | None
) -> tuple[list[list[Stay] | None], Has]:
    """Return where programs were, None where that cannot be told, and what was in memory."""

    async def search() -> tuple[list[list[Stay] | None], Has]:
        async with await Timeline.open(recording, progress=progress) as timeline:
            seen = recording.manifest.ram.seen
            notes = [one.note for one in programs if one.note]
            known = {note for note in notes if not seen or was_in_memory(timeline.store, note)}
            if not can_search(timeline):
                return [None] * len(programs), known.__contains__
            wanted = [_wanted(one) for one in programs]
            found = await stays_of(timeline, [one for one in wanted if one])
            places = iter(found)
            return [next(places) if one else None for one in wanted], known.__contains__

    loop = LoopThread()
    try:
        return loop.run(search())
    finally:
        loop.close()


def _wanted(given: SymbolFile) -> Wanted | None:
    elf = given.program
    if elf is None:
        return None
    pieces = [Piece(address, content) for address, content in elf.pieces()]
    return Wanted(elf.entry, pieces, elf.is_movable) if pieces else None


def _read(file: Path, recording: Recording) -> SymbolFile:
    if is_elf(file):
        require_program_for(file, recording.manifest.machine.target)
    return read_symbol_file(file)


def _rows(store: IndexStore) -> list[Row]:
    with store.connect(("symbols",)) as connection:
        found = connection.execute(f"SELECT {', '.join(Row._fields)} FROM symbols").fetchall()
    return [Row(*row) for row in found]


def _parts(maker: str | None) -> list[str]:
    return maker.split(_BETWEEN) if maker else []


def _joined(makers: Sequence[str]) -> str:
    text = _BETWEEN.join(dict.fromkeys(makers))
    if len(text) <= _MAKER_LIMIT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{makers[0]}{_BETWEEN}{len(makers) - 1} files (SHA-256 {digest})"


_NO_SYMBOLS: Final = (
    "No symbols of a Linux kernel were found in this machine's memory; "
    "--symbols takes them from a vmlinux, ELF file or System.map."
)


def _of_inputs(recording: Recording) -> SymbolFile | None:
    """Return the symbols of a kernel or firmware the machine was started with, if it has any."""
    for entry in recording.manifest.inputs:
        with contextlib.suppress(UsageError):
            return read_symbol_file(recording.input_path(entry.name), elf_only=True)
    return None


def _digest(file: Path) -> str:
    # A file that cannot be read is reported by who reads it.
    content = file.read_bytes() if file.is_file() else b""
    name = visible(file.name).replace(_BETWEEN, "_")[:100]
    return f"{name} (SHA-256 {hashlib.sha256(content).hexdigest()})"


def _slide(given: SymbolFile, kernel: _Kernel) -> int:
    """Return how far from where it was linked the kernel ran (KASLR)."""
    linked = {symbol.name: symbol.address for symbol in given.symbols}
    for name in ANCHORS:
        if name in kernel.anchors and name in linked:
            return kernel.anchors[name] - linked[name]
    return moved_by(kernel.handlers, linked) or 0


def _check(given: SymbolFile, kernel: Sequence[Symbol], has: Has, slide: int) -> list[str]:
    """Say in words why the symbols in a file are not those of the program that ran."""
    if given.note:
        return [] if has(given.note) else [_strange(given)]
    ran = {symbol.name: symbol.address for symbol in kernel if symbol.type in "Tt"}
    common = [symbol for symbol in given.symbols if symbol.name in ran]
    same = sum(ran[symbol.name] == symbol.address + slide for symbol in common)
    if same >= _SAME_ENOUGH * len(common):
        return []
    return [
        f"{given.name} is not of the kernel that ran in this machine: {len(common) - same:_} of "
        f"{len(common):_} functions are elsewhere. Its names may be wrong."
    ]


def _strange(given: SymbolFile) -> str:
    return (
        f"{given.name} is not what ran in this machine: its build id {given.build_id} was "
        "nowhere in memory at a checkpoint. Its names may be wrong."
    )
