"""Rows of a query as they come: for people, as CSV, as JSON. Constant memory."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TextIO, TypeAlias

import msgspec

from retrograde.visible import visible, visible_json

SAMPLE: Final = 500
"""Rows a table's widths are taken from; later ones that are wider stick out."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT")


class Rows(Protocol):
    """Tuples, and the name and SQL type of each of their columns."""

    columns: list[tuple[str, str]]

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...


@dataclass
class Listed:
    """Rows that are all there."""

    columns: list[tuple[str, str]]
    rows: Sequence[tuple[Any, ...]]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)


Writer: TypeAlias = Callable[[Rows, TextIO], None]


def write_table(rows: Rows, out: TextIO) -> None:
    """Write columns for people: addresses in hex, other whole numbers grouped by thousands."""
    kinds = [kind for _, kind in rows.columns]
    cells = ([_cell(v, k) for v, k in zip(row, kinds, strict=True)] for row in rows)
    headers = [visible(name) for name, _ in rows.columns]
    sample = list(itertools.islice(cells, SAMPLE))
    widths = [max(map(len, column)) for column in zip(headers, *sample, strict=True)]
    to_right = [kind in _NUMBERS or kind == "UBIGINT" for kind in kinds]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_right, strict=True)
        )
        return "  ".join(padded).rstrip() + "\n"

    out.write(line(headers))
    out.write(line(["─" * width for width in widths]))
    for row in itertools.chain(sample, cells):
        out.write(line(row))


def write_csv(rows: Rows, out: TextIO) -> None:
    """Write RFC 4180's CSV with a header line; NULL is empty, bytes are hex digits.

    On a terminal, which is no reader of CSV, with escapes; elsewhere it is data as it is.
    """
    show = _shown if out.isatty() else _plain
    writer = csv.writer(out)
    writer.writerow([show(name) for name, _ in rows.columns])
    writer.writerows([show(value) for value in row] for row in rows)


def write_json(rows: Rows, out: TextIO) -> None:
    """Write one JSON array with an object for each row; bytes are hex digits."""
    names = [name for name, _ in rows.columns]
    before = "["
    for row in rows:
        fields = dict(zip(names, map(_plain, row), strict=True))
        out.write(f"{before}\n{visible_json(msgspec.json.encode(fields).decode())}")
        before = ","
    out.write("[]\n" if before == "[" else "\n]\n")


WRITERS: Final[Mapping[str, Writer]] = {
    "table": write_table,
    "csv": write_csv,
    "json": write_json,
}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else _plain(value)


def _cell(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if kind == "UBIGINT":
        return f"{value:#x}"
    if kind in _NUMBERS:
        return f"{value:_}"
    if isinstance(value, bytes):
        return value.hex()
    return visible(str(value))
