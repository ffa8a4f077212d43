"""A recording as a Perfetto trace: calls by address space, interrupts, console lines.

One instruction is a nanosecond: a trace's time axis is the position. Of calls there may be
tens of millions, so the longest are taken. A slice needs an end, so calls whose return the
index does not know are left out.

On one track of a trace slices lie within each other, but the calls of an address space do
not, because a kernel switches between stacks: such a call goes to the next track of its
space on which it fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.index import perfetto
from retrograde.index.symbols.symbols import Symbols, build_symbols
from retrograde.index.tables.logtables import build_log_tables
from retrograde.index.tables.store import IndexStore
from retrograde.recording.bundle import Recording
from retrograde.recording.claim import made_whole, writing

LONGEST_CALLS: Final = 200_000
"""Calls taken, if not said otherwise: what ui.perfetto.dev shows without a wait."""

_MACHINE, _CONSOLE, _INTERRUPTS, _EXCEPTIONS = 1, 2, 3, 4
_TITLES: Final = {_CONSOLE: "console", _INTERRUPTS: "interrupts", _EXCEPTIONS: "exceptions"}
_FIRST_SPACE: Final = 16


@dataclass(frozen=True)
class Exported:
    """How much a trace holds, and `troubles` in words."""

    calls: int
    spaces: int
    interrupts: int
    lines: int
    troubles: tuple[str, ...]


class _Names:
    """Numbers for the names of events."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self.known.setdefault(name, len(self.known) + 1)


def export(
    recording: Recording,
    path: Path,
    *,
    start: int = 0,
    stop: int | None = None,
    calls: int = LONGEST_CALLS,
    symbols: Sequence[Path] = (),
) -> Exported:
    """Write what happened from `start` to `stop`, both included, to `path` as a Perfetto trace.

    `calls` says how many at most. Raises UsageError when there is nothing in the span, or
    `path` cannot be written, RecordingError where calls were damaged and are lost.
    """
    stop = recording.end if stop is None else stop
    if start > stop:
        raise UsageError(f"No position is from {start:_} to {stop:_}.", "Swap them.")
    store = IndexStore(recording)
    store.require_whole("calls")
    troubles = build_log_tables(store, recording)
    table, left_out = _longest(store, start, stop, calls)
    if not store.done("calls"):
        troubles.append(f"There are no calls: `retrograde index {recording.path}` finds them.")
    else:
        troubles += build_symbols(store, recording, symbols)
    if left_out:
        troubles.append(f"{left_out:_} shorter calls were left out; --calls takes more.")
    with store.connect(("console", "interrupts", "exceptions")) as rows:
        lines = rows.execute(
            "SELECT position, text FROM console WHERE position BETWEEN ? AND ? ORDER BY position",
            [start, stop],
        ).fetchall()
        kinds = [
            rows.execute(
                f"SELECT position FROM {name} WHERE position BETWEEN ? AND ? ORDER BY position",
                [start, stop],
            ).fetchnumpy()["position"]
            for name in ("interrupts", "exceptions")
        ]
    names = _Names()
    placed, described = _lanes(table, Symbols.load(store), names)
    instants = [(at, _CONSOLE, names.number(text or " ")) for at, text in lines]
    for track, name, positions in zip(
        (_INTERRUPTS, _EXCEPTIONS), ("interrupt", "exception"), kinds, strict=True
    ):
        instants += [(at, track, names.number(name)) for at in positions.tolist()]
    with made_whole(path) as partial, writing(path), partial.open("wb") as file:
        file.write(perfetto.names((number, name) for name, number in names.known.items()))
        file.write(perfetto.process(_MACHINE, 1, f"{recording.name} (1 instruction = 1 ns)"))
        for uuid, title in _TITLES.items():
            file.write(perfetto.track(uuid, _MACHINE, title))
        file.writelines(described)
        file.writelines(perfetto.instant(*one) for one in instants)
        _write_slices(file, placed)
    return Exported(
        calls=len(table["position"]),
        spaces=len(np.unique(table["space"])),
        interrupts=len(kinds[0]),
        lines=len(lines),
        troubles=tuple(troubles),
    )


def _longest(
    store: IndexStore, start: int, stop: int, count: int
) -> tuple[dict[str, NDArray[Any]], int]:
    """Return the calls in the span that took longest, by position, and how many others."""
    inside = "FROM calls WHERE position >= ? AND return_position <= ?"
    with store.connect(("calls",)) as rows:
        total = rows.execute(f"SELECT count(*) {inside}", [start, stop]).fetchall()[0][0]
        found = rows.execute(
            f"SELECT * FROM (SELECT position, return_position, target, space {inside} "
            "ORDER BY return_position - position DESC, position LIMIT ?) ORDER BY position",
            [start, stop, count],
        ).fetchnumpy()
    return {name: np.asarray(values) for name, values in found.items()}, max(0, total - count)


_Slice = tuple[int, int, int, int]
"""Begin, end, track, name."""


def _lanes(
    table: dict[str, NDArray[Any]], symbols: Symbols, names: _Names
) -> tuple[list[_Slice], list[bytes]]:
    """Give each call a track on which it lies in or beside all others."""
    groups: dict[int, int] = {}
    open_ends: dict[int, list[tuple[int, list[int]]]] = {}
    placed: list[_Slice] = []
    described: list[bytes] = []
    uuid = _FIRST_SPACE
    columns = (table[name] for name in ("position", "return_position", "space", "target"))
    for began, ended, space, target in zip(*(c.tolist() for c in columns), strict=True):
        if space not in groups:
            groups[space] = uuid
            described.append(perfetto.process(uuid, len(groups) + 1, f"address space {space:#x}"))
            open_ends[space], uuid = [], uuid + 1
        track = _fitting(open_ends[space], began, ended)
        if track is None:
            track = uuid
            uuid += 1
            open_ends[space].append((track, [ended]))
            described.append(perfetto.track(track, groups[space], "calls"))
        name = symbols.lookup(target, began, space) or f"{target:#x}"
        placed.append((began, ended, track, names.number(name)))
    return placed, described


def _fitting(lanes: Sequence[tuple[int, list[int]]], began: int, ended: int) -> int | None:
    """Return the first track on which a call fits, which then has it; None if none does."""
    for track, ends in lanes:
        while ends and ends[-1] <= began:
            ends.pop()
        if not ends or ended <= ends[-1]:
            ends.append(ended)
            return track
    return None


def _write_slices(file: BinaryIO, placed: Sequence[_Slice]) -> None:
    """Write begins and ends as time goes; what ends where another begins ends first."""
    for time, _, _, track, name in sorted(_edges(placed)):
        is_end = name == 0
        file.write(perfetto.end(time, track) if is_end else perfetto.begin(time, track, name))


def _edges(placed: Sequence[_Slice]) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield time, order at that time, track and name; 0 for the name of an end.

    Of several that end at once the one begun last ends first.
    """
    for began, ended, track, name in placed:
        yield began, 1, 0, track, name
        yield ended, 0, -began, track, 0
