"""Rows of the table `symbols`: of the kernel, and of programs in each of their processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from retrograde.index.symbols.kallsyms import ANCHORS, Symbol
from retrograde.index.symbols.programplace import Stay
from retrograde.index.symbols.symbolfile import SymbolFile


class Row(NamedTuple):
    """A row of the table, in the order of its columns."""

    address: int
    size: int
    name: str
    type: str
    module: str | None
    main: bool
    space: int | None
    first: int | None
    last: int | None


def rows_of(
    symbols: Iterable[Symbol], sizes: Mapping[int, int], module: str | None = None
) -> list[Row]:
    """Return symbols as rows that hold in all address spaces, by address."""
    symbols = sorted(symbols)
    placed = [symbol.address for symbol in symbols if symbol.type not in "Aa"]
    following = {a: b - a for a, b in pairwise(placed) if b > a}
    best = {symbol.address: symbol for symbol in sorted(symbols, key=_rank, reverse=True)}

    def row(symbol: Symbol) -> Row:
        address = symbol.address
        size = sizes.get(address, 0 if sizes else following.get(address, 0))
        main = symbol is best[address] and symbol.type not in "Aa"
        return Row(address, size, symbol.name, symbol.type, module, main, None, None, None)

    return [row(symbol) for symbol in symbols]


def rows_in(given: SymbolFile, stays: Sequence[Stay]) -> Iterator[Row]:
    """Yield a program's symbols as rows of each address space that has it."""
    rows = rows_of(given.symbols, given.sizes, given.name)
    for (root, base), first, last in stays:
        for row in rows:
            address = row.address + base
            if address < 1 << 64:
                yield row._replace(address=address, space=root, first=first, last=last)


def columns_of(rows: Iterable[Row]) -> dict[str, Sequence[object]]:
    """Return rows as columns, by address."""
    ordered = sorted(rows, key=lambda row: row.address)
    columns = zip(*ordered, strict=True) if ordered else ((),) * len(Row._fields)
    return dict(zip(Row._fields, columns, strict=True))


def _rank(symbol: Symbol) -> tuple[bool, bool, int, bool, str]:
    """Order the symbols at one address: first that which says most about what is there.

    Functions before data, what is something before marks of where a section begins or
    ends, what people call before what the compiler and the linker made.
    """
    name = symbol.name
    is_mark = name in ANCHORS or name.endswith(("_start", "_end", "_begin"))
    underscores = len(name) - len(name.lstrip("_."))
    return (symbol.type not in "Tt", is_mark, underscores, symbol.type.islower(), name)
