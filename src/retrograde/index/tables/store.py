"""The index on disk: `cache/index/`, columns in Parquet, written and read by DuckDB.

::

    meta.json     format, the recording's digest, each table's version and maker; twice
    TABLE/        rows, a file an interval of positions, see files

A file is written under a temporary name and renamed: the names alone say which intervals
are done. Several processes may write at once. What was made from another recording, or for
another version of a table, is removed on opening; what is damaged is when it is used first.
Both are said in a warning. What anybody may have written there names no path.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BufferedRandom
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from retrograde.errors import EnvironmentLacks, InternalError, RecordingError
from retrograde.index.tables.files import META, META_LIMIT, IndexFiles, Interval
from retrograde.index.tables.tables import TABLES, Column, Table
from retrograde.recording.bundle import LOG, Recording, digest_file
from retrograde.recording.folder import unreadable_is_none
from retrograde.recording.manifest import Line
from retrograde.recording.sealed import Damaged, Kept, copy_of

if TYPE_CHECKING:
    import duckdb

FORMAT: Final = 2
FOLDER: Final = "index"

# Version 2 knows differences from row to row: positions take a byte less each. Groups of a
# third of the usual size: what is asked of one function reads less that is not of it.
_OPTIONS: Final = (
    "FORMAT parquet, PARQUET_VERSION V2, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
    "ROW_GROUP_SIZE 40960, DICTIONARY_SIZE_LIMIT 512, USE_TMP_FILE false"
)

_NUMBERS: Final = {
    "BIGINT": np.int64,
    "UBIGINT": np.uint64,
    "INTEGER": np.int32,
    "UTINYINT": np.uint8,
    "BOOLEAN": np.bool_,
}


_log = logging.getLogger(__name__)


class Meta(msgspec.Struct, forbid_unknown_fields=True):
    """meta.json.

    `recording` is the SHA-256 of the rr log. `versions` holds the version of each table
    as it is on disk, `makers` what made it, in words that `IndexStore.claim` was given.
    """

    format: int
    recording: str
    versions: dict[str, int] = {}
    makers: dict[str, Line] = {}


class IndexStore:
    """The index of one recording. Opening it makes the folder and removes what is stale."""

    def __init__(self, recording: Recording) -> None:
        self.folder = recording.cache / FOLDER
        self._recording = recording
        digest = _digest_of(recording)
        try:
            self._folder = recording.open_cache(make=True).own_folder(FOLDER)
            self._files = IndexFiles(self._folder)
            self._meta = Kept(self._folder, META, Meta, META_LIMIT)
            with self._folder.locked():
                self._adopt(digest)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def write(
        self,
        table: str,
        first: int,
        last: int,
        columns: Mapping[str, np.ndarray[Any, Any] | Sequence[object]],
    ) -> None:
        """Write the rows of `table` in the positions `first` <= position < `last`.

        `columns` holds all columns of the table, of equal length. What is there for the
        same interval is replaced. Raises EnvironmentLacks when the disk is full.
        """
        schema = TABLES[table]
        if set(columns) != {column.name for column in schema.columns}:
            raise InternalError(f"The columns of {table} cannot be {sorted(columns)}.")
        with self._replacing(table, (first, last)) as part:
            rows = {c.name: _array(columns[c.name], c.type) for c in schema.columns}
            self._writer.register("rows", rows)
            # By descriptor: the name could have become a link to anywhere meanwhile.
            self._writer.execute(
                f"COPY (SELECT {_cast(schema)} FROM rows) TO '/dev/fd/{part.fileno()}' ({_OPTIONS})"
            )
            self._writer.unregister("rows")

    def packed(self, table: str, interval: Interval) -> bytes:
        """Return the rows of an interval that is done, as they are on disk."""
        return self._files.read(table, interval)

    def put(self, table: str, interval: Interval, packed: bytes) -> None:
        """Write rows that `packed` of another store returned; raises as `write` does."""
        with self._replacing(table, interval) as part:
            part.write(packed)

    @contextlib.contextmanager
    def _replacing(self, table: str, interval: Interval) -> Iterator[BufferedRandom]:
        engine = import_duckdb()
        try:
            with self._files.replacing(table, interval) as part:
                yield part
        except (OSError, engine.IOException) as error:
            raise _cannot_write(self.folder / table, error) from error

    def done(self, table: str) -> list[Interval]:
        """Return the intervals of `table` that are on disk, by position."""
        return [interval for interval, _ in self._files.of(table)]

    def covers(self, table: str, end: int) -> bool:
        """Whether the rows of `table` at all positions before `end` are on disk."""
        done = self.done(table)
        joined = all(one[1] == other[0] for one, other in pairwise(done))
        return bool(done) and joined and done[0][0] == 0 and done[-1][1] >= end

    def missing(self, table: str, intervals: Sequence[Interval]) -> list[Interval]:
        """Return those of `intervals` that are not on disk as they are."""
        have = set(self.done(table))
        return [interval for interval in intervals if interval not in have]

    def lost(self, table: str) -> list[Interval]:
        """Return the intervals of `table` whose rows were damaged and not made again yet."""
        return self._files.lost(table)

    def require_whole(self, *tables: str) -> None:
        """Raise RecordingError where rows of one of `tables` were damaged and are lost."""
        for table in tables:
            if lost := self.lost(table):
                first, last = lost[0][0], lost[-1][1]
                path = self._recording.path
                writes = f" --writes WHERE --from {first} --to {last}"
                raise RecordingError(
                    f"Rows of the table {table} between {first:_} and {last:_} were damaged, "
                    "and are lost.",
                    f"Make them again: retrograde index {path}{writes * (table == 'writes')}",
                )

    def drop(self, table: str) -> None:
        """Remove all rows of `table`."""
        with self._folder.locked():
            self._files.remove(table)

    def claim(self, table: str, maker: str) -> None:
        """Say what makes `table` from now on; removes rows that something else made."""
        with self._folder.locked():
            meta = self._meta.read()
            if meta.makers.get(table, maker) != maker:
                self._files.remove(table)
                _made_anew(f"{table} was made by {meta.makers[table]}")
            meta.makers[table] = maker
            self._meta.write(meta)

    def maker(self, table: str) -> str | None:
        """Return what `claim` was told of `table`, whose rows may be lost; None: nobody made it."""
        return self._meta.read().makers.get(table)

    def connect(self, tables: Collection[str] = tuple(TABLES)) -> duckdb.DuckDBPyConnection:
        """Open a database in memory with a view of each table, empty where nothing is built.

        Only the files of `tables` are checked now. The others can be asked for their columns;
        for rows not before `show`.
        """
        connection: duckdb.DuckDBPyConnection = import_duckdb().connect(":memory:")
        # Otherwise a misspelt table would be looked for among the caller's variables.
        connection.execute("SET python_enable_replacements = false")
        # The files never change: what they hold need not be looked up again for each query.
        connection.execute("SET parquet_metadata_cache = true")
        # It goes to stdout after two seconds, among what a command prints there.
        connection.execute("SET enable_progress_bar = false")
        for table in TABLES.values():
            if table.name in tables:
                self.show(table.name, connection)
            else:
                hidden = f"error('The table {table.name} has to be named.')::BOOLEAN"
                connection.execute(f"CREATE VIEW {table.name} AS {_nulls(table)} WHERE {hidden}")
        return connection

    def show(self, table: str, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the view of `table` in a database show what is on disk now, and whole."""
        query = self._select(TABLES[table])
        connection.execute(f"CREATE OR REPLACE VIEW {table} AS {query}")

    def state(self) -> tuple[int, ...]:
        """Return what changes whenever a file is added or removed."""
        return self._files.state()

    @functools.cached_property
    def _writer(self) -> duckdb.DuckDBPyConnection:
        """The database that writes files, kept because starting one takes 0.1 s.

        With one thread, so that the same rows give the same bytes.
        """
        writer: duckdb.DuckDBPyConnection = import_duckdb().connect(
            ":memory:", config={"threads": 1}
        )
        return writer

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._files.bytes

    def _select(self, table: Table) -> str:
        files = [path for _, path in self._files.of(table.name)]
        if not files:
            return f"{_nulls(table)} WHERE false"
        names = ", ".join(f"'{_quoted(path)}'" for path in files)
        columns = ", ".join(map(_restored, table.columns))
        # DuckDB takes all files to have as many rows as the first, which may have none, and then
        # joins the wrong way round: a name was looked for in every call. A row has some bytes.
        rows = self._files.bytes_of(table.name) if len(files) > 1 else 0
        guess = f", explicit_cardinality={rows}" if rows else ""
        return f"SELECT {columns} FROM read_parquet([{names}]{guess})"

    def _adopt(self, digest: str) -> None:
        """Keep what is here if it was made from the recording with `digest`."""
        found = meta = self._found(digest)
        if meta is None:
            for table in TABLES:
                self._files.remove(table)
            for name in (META, copy_of(META)):
                self._folder.remove(name, lambda _: False)
            meta = Meta(FORMAT, digest)
        versions = {table.name: table.version for table in TABLES.values()}
        for name, version in meta.versions.items():
            if name in versions and versions[name] != version:
                self._files.remove(name)
                _made_anew(f"{name} was of version {version}")
                meta.makers.pop(name, None)
        self._files.sweep()
        if found is None or meta.versions != versions:
            meta.versions = versions
            self._meta.write(meta)

    def _found(self, digest: str) -> Meta | None:
        """Return what meta.json says, if that is of the recording with `digest`."""
        try:
            meta = self._meta.read()
        except FileNotFoundError:
            return None
        except Damaged:
            _made_anew("the index was damaged or of another version")
            return None
        if meta.format != FORMAT:
            _made_anew("the index was of another version")
            return None
        if meta.recording != digest:
            _made_anew("the index was made from another recording")
            return None
        return meta


def has_index(recording: Recording) -> bool:
    """Whether there may be an index on disk; makes nothing, unlike opening the store."""
    with unreadable_is_none():
        return FOLDER in recording.open_cache().names()
    return False


def has_table(recording: Recording, table: str) -> bool:
    """Whether rows of `table` may be on disk; makes nothing, unlike opening the store."""
    with unreadable_is_none():
        return table in recording.open_cache().folder(FOLDER).names()
    return False


def import_duckdb() -> Any:
    """Return the module duckdb; raises EnvironmentLacks where it is not installed."""
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            "The index needs the Python package duckdb.", "Run: pip install 'retrograde[index]'"
        ) from error
    return duckdb


def _made_anew(reason: str) -> None:
    _log.warning("Made anew: %s.", reason)


def _nulls(table: Table) -> str:
    return "SELECT " + ", ".join(f"NULL::{c.type} AS {c.name}" for c in table.columns)


def _digest_of(recording: Recording) -> str:
    """Return the SHA-256 of the rr log; of a recording never finished it has to be computed."""
    recorded = recording.manifest.files.get(LOG)
    if recorded:
        return recorded.sha256
    with recording.open_own(LOG) as file:
        return digest_file(file, LOG).sha256


def _array(values: np.ndarray[Any, Any] | Sequence[object], kind: str) -> np.ndarray[Any, Any]:
    """Return values as DuckDB takes them, None as NULL.

    Of Python's objects DuckDB guesses the type by looking at some, and numbers that are
    larger than those it saw are then refused.
    """
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    absent = [value is None for value in values]
    if dtype := _NUMBERS.get(kind):
        present = (0 if value is None else value for value in values)
        return np.ma.array(np.fromiter(present, dtype, len(values)), mask=absent)
    # Filled afterwards: numpy would make an array of numbers, or of rows, where it could.
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _cast(table: Table) -> str:
    return ", ".join(map(_stored, table.columns))


def _stored(column: Column) -> str:
    minus = f" - {column.since}" if column.since else ""
    return f"({column.name}{minus})::{column.type} AS {column.name}"


def _restored(column: Column) -> str:
    return f"{column.since} + {column.name} AS {column.name}" if column.since else column.name


def _quoted(path: str) -> str:
    return path.replace("'", "''")


def _cannot_write(folder: Path, error: Exception) -> EnvironmentLacks:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return EnvironmentLacks(
            f"The disk is full: the index in {folder} cannot be written.",
            "Free some space and start again; what is done so far stays.",
        )
    return EnvironmentLacks(
        f"The index in {folder} cannot be written: {error}.",
        "Copy the recording to where you may write.",
    )
