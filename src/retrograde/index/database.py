"""Questions to an index in SQL: one at a time, streamed, and stopped at once by Ctrl-C.

A query may come from a stranger, as a recording may. So it may read the index of its
recording and nothing else: DuckDB's access to files ends at that folder, extensions are
not loaded, and of all statements only queries are taken.
"""

from __future__ import annotations

import collections
import concurrent.futures
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.held import Scratch
from retrograde.index.literals import in_decimal
from retrograde.index.tables.logtables import build_log_tables
from retrograde.index.tables.store import IndexStore, import_duckdb
from retrograde.index.tables.tables import TABLES
from retrograde.index.tables.views import VIEWS
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    import duckdb

Result = TypeVar("Result")
Progress = Callable[[int], None]

BATCH: Final = 10_000
"""Rows taken at a time."""

_VIEWS: Final = {view.name for view in VIEWS}
_BELOW_VIEWS: Final = {"calls", "symbols"}

_OPTIONS: Final = {"writes": " --writes WHERE"}


class Database:
    """The tables and views of one recording. What the rr log holds is built on opening.

    The table of symbols is built, with those of the files `symbols`, when a query first needs
    it; where the recording has no checkpoints that takes a replay, of which `progress` is told
    positions. `output` names the only file `save` may write. `notes`
    says in words what a user should know: which table there is not, or not all of it.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        symbols: Sequence[Path] = (),
        output: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._duckdb = import_duckdb()
        self._recording = recording
        self._symbols = symbols
        self._progress = progress
        self.store = IndexStore(recording)
        self.notes = build_log_tables(self.store, recording)
        self._state = self.store.state()
        self._shown: set[str] = set()
        self._connection = self.store.connect(())
        for view in VIEWS:
            self._connection.execute(f"CREATE VIEW {view.name} AS {view.query}")
        self._scratch = Scratch()
        self._confine([output] if output else [])
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back memory, and disk that a large query took. Safe to repeat."""
        self._thread.shutdown()
        self._connection.close()
        self._scratch.close()

    @property
    def is_current(self) -> bool:
        """Whether it shows the index as it is on disk now."""
        return self.store.state() == self._state

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Ask a question; `parameters` stand for the question marks in `sql`.

        Raises UsageError, with DuckDB's message, when it is no question or fails, and
        RecordingError where rows it asks for were damaged and are lost.
        """
        statement = self._only_statement(sql)
        cursor = self._connection.cursor()
        self.do(cursor, lambda: cursor.execute(statement, list(parameters)))
        return Answer(self, cursor)

    def save(self, sql: str, path: Path) -> None:
        """Write the answer to `sql` as Parquet (zstd) to `path`, the output given on opening."""
        query = str(self._only_statement(sql).query)
        cursor = self._connection.cursor()
        # Into the file that is there, which is claimed, and not into one beside it.
        how = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
        copy = f"COPY (FROM answer) TO {_text(path)} ({how})"
        self.do(cursor, lambda: cursor.sql(query).query("answer", copy))

    def do(self, cursor: duckdb.DuckDBPyConnection, work: Callable[[], Result]) -> Result:
        """Do `work` with `cursor` in a thread of its own; Ctrl-C interrupts it.

        DuckDB 2.0 does not look at signals while it works. Raises UsageError where it refuses
        the question; what it lacks, memory or a file, is raised as its own error (foreign).
        """
        try:
            return self._thread.submit(work).result()
        except (self._duckdb.OutOfMemoryException, self._duckdb.IOException):
            raise
        except self._duckdb.Error as error:
            raise _refused(error) from error
        except BaseException:
            self._interrupt(cursor)
            raise

    def _interrupt(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Have `cursor` end its work, which may have been handed over a moment ago."""
        idle = self._thread.submit(int)  # its turn comes when nothing is left before it
        # An interrupt that comes before DuckDB has begun is lost.
        while not idle.done():
            cursor.interrupt()
            concurrent.futures.wait([idle], timeout=0.05)

    def _confine(self, writable: Sequence[Path]) -> None:
        spill = self._scratch.path / "spill"  # made when a query outgrows the memory
        for setting in (
            "memory_limit = '50%'",
            f"temp_directory = {_text(spill)}",
            f"allowed_directories = [{_text(self.store.folder)}]",
            f"allowed_paths = [{', '.join(map(_text, writable))}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._connection.execute(f"SET {setting}")

    def _only_statement(self, sql: str) -> Any:
        try:
            sql = in_decimal(self._duckdb, sql)
            statements = self._connection.extract_statements(sql)
        except self._duckdb.Error as error:
            raise _refused(error) from error
        kinds = [statement.type.name for statement in statements]
        if kinds != ["SELECT"]:
            raise UsageError(
                f"Not a single query: {', '.join(kinds) or 'nothing'}.",
                "Write one SELECT, FROM, WITH, DESCRIBE or SUMMARIZE; an index is only read.",
            )
        self._prepare(_tables_in(sql))
        return statements[0]

    def _prepare(self, tables: set[str]) -> None:
        """Check the files of `tables`, which a query reads, and build or say what is missing."""
        if "symbols" in tables:
            from retrograde.index.symbols.symbols import build_symbols

            self.notes += build_symbols(
                self.store, self._recording, self._symbols, progress=self._progress
            )
            self._shown.discard("symbols")
        for name in sorted(tables):
            if TABLES[name].source in ("replay", "choice"):
                self.store.require_whole(name)
                self.notes += self._lacking(name)
            if name not in self._shown:
                self.store.show(name, self._connection)
                self._shown.add(name)

    def _lacking(self, name: str) -> list[str]:
        """Say in words that a table is not built, or not for all of the recording."""
        command = f"`retrograde index {self._recording.path}{_OPTIONS.get(name, '')}`"
        if not self.store.done(name):
            return [f"The table {name} is empty: {command} builds it."]
        if name not in _OPTIONS and not self.store.covers(name, self._recording.end):
            return [f"The table {name} is of a part of the recording: {command} adds the rest."]
        return []


class Answer:
    """Rows of a query, computed as they are asked for, once.

    Iterating gives tuples that have the columns' names, as in `row.position`; a column whose
    name Python has no room for is `_N`, counted from 0. `columns` are names and SQL types.
    """

    def __init__(self, database: Database, cursor: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        self._cursor = cursor
        self.columns = [(name, str(kind)) for name, kind, *_ in cursor.description or ()]

    def __iter__(self) -> Iterator[Any]:
        names = [name for name, _kind in self.columns]
        row = collections.namedtuple("Row", names, rename=True)  # type: ignore[misc]
        while rows := self._do(lambda: self._cursor.fetchmany(BATCH)):
            yield from map(row._make, rows)

    def all(self) -> list[Any]:
        """Return all rows that are left."""
        return list(self)

    def arrow(self) -> Any:
        """Return the rows that are left as a `pyarrow.Table`; EnvironmentLacks without it."""
        _require("pyarrow")
        return self._do(self._cursor.to_arrow_table)

    def pandas(self) -> Any:
        """Return the rows that are left as a `pandas.DataFrame`; EnvironmentLacks without it."""
        _require("pandas")
        return self._do(self._cursor.df)

    def polars(self) -> Any:
        """Return the rows that are left as a `polars.DataFrame`; EnvironmentLacks without it."""
        return _require("polars").from_arrow(self.arrow())

    def _do(self, work: Callable[[], Result]) -> Result:
        return self._database.do(self._cursor, work)


def _tables_in(sql: str) -> set[str]:
    """Return the tables that a query may read.

    By its words alone: DuckDB's get_table_names looks through views and fails on those of
    several files. One that has a table's name in a text only takes longer; one that reads a
    table without its name, which takes a function, is refused (see `IndexStore.connect`).
    """
    words = set(re.findall(r"\w+", sql.lower()))
    return words & TABLES.keys() | (_BELOW_VIEWS if words & _VIEWS else set())


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            f"This form of an answer needs the Python package {package}.",
            f"Run: pip install {package}",
        ) from error


def _text(path: str | Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _refused(error: Exception) -> UsageError:
    known = ", ".join((*TABLES, *(view.name for view in VIEWS)))
    return UsageError("DuckDB cannot answer this.", f"There are {known}.", str(error))
