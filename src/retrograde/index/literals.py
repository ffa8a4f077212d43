"""Hexadecimal numbers in SQL, as addresses are: DuckDB alone takes 0xff for `0 AS xff`."""

from __future__ import annotations

import re
from typing import Any, Final

from retrograde.errors import UsageError

_HEXADECIMAL: Final = re.compile(rb"0[xX]([0-9a-fA-F]+)(?![0-9A-Za-z_$])")


def in_decimal(duckdb: Any, sql: str) -> str:
    """Return `sql` with numbers like 0xffffffff81000000 written in decimal.

    Where they are is DuckDB's word, so that text, names and comments stay as they are.
    Raises UsageError for one that no column can hold.
    """
    data, done, parts = sql.encode(), 0, []
    for start, kind in duckdb.tokenize(sql):
        found = _HEXADECIMAL.match(data, start) if kind.name == "numeric_const" else None
        if found is None:
            continue
        number = int(found.group(1), 16)
        if number >= 1 << 64:
            raise UsageError(f"{found.group().decode()[:40]} has more than 64 bits.")
        parts += [data[done:start], b"%d" % number]
        done = found.end()
    return b"".join((*parts, data[done:])).decode()
