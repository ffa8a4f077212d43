"""Names for addresses: the table `symbols`, and looking addresses up in it.

The symbols are those of a file the user gives, moved to where the kernel ran; else those
that the guest's kernel keeps in its own memory (see `kallsyms`); else those of the program
the machine was started with. Memory is that of a
checkpoint: no machine is run where the recording has checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from retrograde.errors import RetrogradeError, UsageError
from retrograde.index.kallsyms import Symbol
from retrograde.index.kernelplace import (
    ANCHORS,
    anchors_of,
    anchors_told,
    last_memory,
    likeliest_table,
)
from retrograde.index.store import IndexStore, has_table
from retrograde.index.symbolfile import SymbolFile, read_symbol_file
from retrograde.recording.bundle import Recording

Progress = Callable[[int], None]

MEMORY: Final = "the guest's memory"
_SAME_ENOUGH: Final = 0.9
"""Share of symbols at equal addresses that two tables of one kernel have at least: some
names stand for several functions."""
_REACH: Final = 1 << 20
"""Bytes after a symbol of unknown size that may still belong to it."""


@dataclass(frozen=True)
class Symbols:
    """Symbols by address, one for each address."""

    addresses: Sequence[int]
    sizes: Sequence[int]
    names: Sequence[str]

    @classmethod
    def load(cls, store: IndexStore) -> Symbols:
        """Read the table `symbols`; empty where it was not built."""
        with store.connect(("symbols",)) as connection:
            rows = connection.execute(
                "SELECT address, size, name FROM symbols WHERE main ORDER BY address"
            ).fetchall()
        addresses, sizes, names = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(addresses, sizes, names)

    @classmethod
    def of(cls, recording: Recording) -> Symbols:
        """Read the table of a recording; empty where it was not built or cannot be read."""
        if has_table(recording, "symbols"):
            with contextlib.suppress(RetrogradeError):
                return cls.load(IndexStore(recording))
        return cls((), (), ())

    def lookup(self, address: int) -> str | None:
        """Return `name` or `name+0x12` for an address; None where there is no symbol."""
        at = bisect_right(self.addresses, address) - 1
        if at < 0:
            return None
        offset = address - self.addresses[at]
        if offset >= (self.sizes[at] or _REACH):
            return None
        return f"{self.names[at]}+{offset:#x}" if offset else self.names[at]


def build_symbols(
    store: IndexStore,
    recording: Recording,
    file: Path | None = None,
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Write the table `symbols` from `file` or what the recording has; says what is wrong.

    Does nothing where the table is there and no other file is given. A recording without
    checkpoints gets them, which takes a replay: `progress` is told positions. Raises
    UsageError for a file without symbols, and as `Timeline.open` does.
    """
    maker = _digest(file) if file else MEMORY
    made_by = store.maker("symbols")
    if made_by and store.done("symbols") and (file is None or made_by == maker):
        return []
    given = read_symbol_file(file) if file else _of_inputs(recording)
    ram, checkpoints = last_memory(recording, progress)
    kernel = likeliest_table(ram, checkpoints)
    if given is None or (kernel and file is None):
        troubles = [] if kernel else [_NO_SYMBOLS]
        symbols, sizes = kernel, {}
    else:
        slide = _slide(given, anchors_of(kernel) or anchors_told(ram, checkpoints))
        troubles = _check(given, kernel, ram, slide) if recording.manifest.ram.seen else []
        symbols = [symbol._replace(address=symbol.address + slide) for symbol in given.symbols]
        sizes = {address + slide: size for address, size in given.sizes.items()}
    if file is None and made_by not in (None, maker):
        troubles = [*troubles, f"The symbols of {made_by} were lost; --symbols takes them again."]
    store.drop("symbols")
    store.claim("symbols", maker)
    store.write("symbols", 0, recording.end + 1, _columns(symbols, sizes))
    return troubles


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
    return f"{file.name} (SHA-256 {hashlib.sha256(content).hexdigest()})"


def _slide(given: SymbolFile, ran: dict[str, int]) -> int:
    """Return how far from where it was linked the kernel ran (KASLR)."""
    linked = anchors_of(given.symbols)
    both = (name for name in ANCHORS if name in ran and name in linked)
    return next((ran[name] - linked[name] for name in both), 0)


def _check(given: SymbolFile, kernel: list[Symbol], ram: mmap.mmap, slide: int) -> list[str]:
    """Say in words why the symbols in a file are not those of the program that ran."""
    if given.note:
        if ram.find(given.note, 0) >= 0:
            return []
        return [
            f"{given.name} is not what ran in this machine: its build id {given.build_id} is "
            "nowhere in memory. Its names may be wrong."
        ]
    ran = {symbol.name: symbol.address for symbol in kernel if symbol.type in "Tt"}
    common = [symbol for symbol in given.symbols if symbol.name in ran]
    same = sum(ran[symbol.name] == symbol.address + slide for symbol in common)
    if same >= _SAME_ENOUGH * len(common):
        return []
    return [
        f"{given.name} is not of the kernel that ran in this machine: {len(common) - same:_} of "
        f"{len(common):_} functions are elsewhere. Its names may be wrong."
    ]


def _columns(symbols: list[Symbol], sizes: dict[int, int]) -> dict[str, Sequence[object]]:
    symbols = sorted(symbols)
    addresses = [symbol.address for symbol in symbols]
    placed = [symbol.address for symbol in symbols if symbol.type not in "Aa"]
    following = {a: b - a for a, b in pairwise(placed) if b > a}
    best = {symbol.address: symbol for symbol in sorted(symbols, key=_rank, reverse=True)}
    return {
        "address": addresses,
        "size": [sizes.get(a, 0 if sizes else following.get(a, 0)) for a in addresses],
        "name": [symbol.name for symbol in symbols],
        "type": [symbol.type for symbol in symbols],
        "module": [None] * len(symbols),
        "main": [symbol is best[symbol.address] and symbol.type not in "Aa" for symbol in symbols],
    }


def _rank(symbol: Symbol) -> tuple[bool, bool, int, bool, str]:
    """Order the symbols at one address: first that which says most about what is there.

    Functions before data, what is something before marks of where a section begins or
    ends, what people call before what the compiler and the linker made.
    """
    name = symbol.name
    is_mark = name in ANCHORS or name.endswith(("_start", "_end", "_begin"))
    underscores = len(name) - len(name.lstrip("_."))
    return (symbol.type not in "Tt", is_mark, underscores, symbol.type.islower(), name)
