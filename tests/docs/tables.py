"""The reference page of tables and views, made from what the code says of them.

python -m tests.docs.tables   writes it anew
"""

from __future__ import annotations

from collections.abc import Iterator

from retrograde.index.tables.tables import TABLES, Column
from retrograde.index.tables.views import VIEWS
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "tables.md"

HEAD = """\
# Tables and views

What `retrograde query` and `Recording.query` can be asked about; [how to ask](../howto/sql.md).
Positions and differences of positions are `BIGINT`, addresses and registers `UBIGINT`.

Tables from the *log* and of *symbols* are there at the first question. Those by *replay* are
made by `retrograde index`; until then they are empty. Those by *choice* are made for the
positions and addresses you say: `retrograde index NAME.retro --writes all --from 1.2G --to 1.3G`.
"""


def rows(columns: tuple[Column, ...]) -> Iterator[str]:
    yield "| column | type | |"
    yield "| --- | --- | --- |"
    for column in columns:
        yield f"| `{column.name}` | {column.type} | {column.meaning} |"


def expected() -> str:
    """The page as it should be."""
    parts = [HEAD]
    for table in TABLES.values():
        title = f"## {table.name}\n\n{table.meaning} By: {table.source}, version {table.version}.\n"
        parts += [title, "\n".join(rows(table.columns)) + "\n"]
    for view in VIEWS:
        title = f"## {view.name} (view)\n\n{view.meaning}\n"
        parts += [title, "\n".join(rows(view.columns)) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(expected())
