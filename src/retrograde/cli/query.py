"""`retrograde query`: ask a recording in SQL."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

import click

from retrograde.cli.arguments import RECORDING, SYMBOLS
from retrograde.cli.output import progress, warn
from retrograde.cli.rows import WRITERS
from retrograde.errors import UsageError
from retrograde.index.database import Database
from retrograde.recording.bundle import Recording
from retrograde.recording.claim import made_whole, writing

PARQUET: Final = "parquet"


@click.command("query")
@RECORDING
@click.argument("sql", metavar="SQL")
@click.option(
    "--format",
    "form",
    type=click.Choice([*WRITERS, PARQUET]),
    help="How rows are written (default: table, or what -o FILE ends in).",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    *("-o", "--output"),
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write there; what is there is replaced when the answer is whole.",
)
@SYMBOLS
def command(
    recording: Recording,
    sql: str,
    form: str | None,
    as_json: bool,
    output: Path | None,
    symbols: tuple[Path, ...],
) -> None:
    """Answer a question about the recorded execution in DuckDB's SQL.

    "SHOW TABLES" lists what there is, "DESCRIBE calls" the columns of a table.
    """
    form = _form(form, as_json, output)
    if form == PARQUET and output is None:
        raise UsageError("Parquet is not for a terminal.", "Name a file: -o FILE.parquet.")
    with (
        made_whole(output) if output else contextlib.nullcontext() as part,
        progress("making checkpoints", recording.end, "asking") as show,
        Database(recording, symbols=symbols, output=part, progress=show) as database,
    ):
        try:
            if part and form == PARQUET:
                database.save(sql, part)
            else:
                answer = database.query(sql)
                with _written(part, output) as file:
                    WRITERS[form](answer, file)
        finally:
            for note in database.notes:
                warn(note)


def _form(form: str | None, as_json: bool, output: Path | None) -> str:
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} exclude each other.", "Leave one out.")
    if form or as_json:
        return form or "json"
    ending = output.suffix.removeprefix(".") if output else ""
    return ending if ending in (*WRITERS, PARQUET) else "table"


@contextlib.contextmanager
def _written(part: Path | None, output: Path | None) -> Iterator[TextIO]:
    """Give where rows go: `part`, of what becomes `output`, else standard output."""
    if part is None or output is None:
        yield sys.stdout
        return
    with writing(output), part.open("w", encoding="utf-8", newline="") as file:
        yield file
