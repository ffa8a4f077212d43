"""Questions in SQL: what is answered, what is refused, how one is stopped."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import retrograde
from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.index.database import Database
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.index.tables.views import VIEWS
from retrograde.recording.bundle import Recording
from tests.damage import spoil
from tests.recording.handmade import make_recording

TEXT, READ, IDLE = 0xFFFFFFFF81000000, 0xFFFFFFFF81000100, 0xFFFFFFFF81000200

ANYWHERE = (None, None, None)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "hand.retro")


def write_symbols(recording: Recording, *symbols: tuple[object, ...]) -> None:
    names = [column.name for column in TABLES["symbols"].columns]
    store = IndexStore(recording)
    store.claim("symbols", "a test")
    store.write("symbols", 0, 1001, {name: [s[n] for s in symbols] for n, name in enumerate(names)})


@pytest.fixture
def database(recording: Recording) -> Iterator[Database]:
    with Database(recording) as database:
        yield database


def write_calls(recording: Recording) -> None:
    """Calls of three functions: two with names, of which one is a system call's."""
    write_symbols(
        recording,
        (TEXT, 0x100, "_text", "T", None, False, *ANYWHERE),
        (TEXT, 0x100, "startup_64", "T", None, True, *ANYWHERE),
        (READ, 0x100, "do_syscall_64", "T", None, True, *ANYWHERE),
        (IDLE, 0x10, "idle", "t", "mod", True, *ANYWHERE),
    )
    calls = [
        (10, TEXT + 8, READ, 60, 1, 0x1000, 0x5000, 0x2000, 7, 0, 0, 0, 0),
        (20, READ + 4, IDLE, None, 2, 0xFF0, 0x5000, 1, 2, 3, 4, 5, 6),
        (30, 0x400000, 0x400100, 40, 1, 0x7FFF0000, 0x6000, 1, 2, 3, 4, 5, 6),
    ]
    names = [column.name for column in TABLES["calls"].columns]
    IndexStore(recording).write(
        "calls", 0, 1000, dict(zip(names, zip(*calls, strict=True), strict=True))
    )


def test_answers(database: Database) -> None:
    answer = database.query("SELECT text, last FROM console WHERE line = ?", [0])
    assert answer.columns == [("text", "VARCHAR"), ("last", "BIGINT")]
    assert answer.all() == [("hello", 1000)]
    assert answer.all() == []


def test_several_answers_at_once(database: Database) -> None:
    one, two = (database.query("FROM range(25_000)") for _ in range(2))
    assert [row[0] for row in one] == [row[0] for row in two] == list(range(25_000))


def test_views_have_the_columns_they_say(recording: Recording, database: Database) -> None:
    write_symbols(recording)
    for view in VIEWS:
        expected = [(column.name, column.type) for column in view.columns]
        assert database.query(f"FROM {view.name}").columns == expected


def test_functions_and_syscalls(recording: Recording) -> None:
    write_calls(recording)
    with Database(recording) as database:
        named = "SELECT position, name, instructions FROM functions ORDER BY position"
        assert database.query(named).all() == [
            (10, "do_syscall_64", 50),
            (20, "idle", None),
            (30, None, 10),
        ]
        assert database.query("FROM syscalls").all() == [(10, 7, 60, 50, 0x5000, 0x2000)]


def test_calls_by_name(recording: Recording) -> None:
    write_calls(recording)
    asked = retrograde.open(recording.path)
    assert [row[:2] for row in asked.calls("idle")] == [(20, "idle")]
    assert asked.calls("no_such_function") == []


def test_what_was_indexed_meanwhile_is_seen(recording: Recording) -> None:
    write_calls(recording)
    asked = retrograde.open(recording.path)
    assert len(asked.calls("idle")) == 1
    kept = asked._open().investigation.tables()
    assert asked.query("SELECT count(*) FROM calls").all() == [(3,)]
    assert asked._open().investigation.tables() is kept
    IndexStore(recording).drop("calls")
    assert not kept.is_current
    assert asked.query("SELECT count(*) FROM calls").all() == [(0,)]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", "Parser Error"),
        ("FROM consol", 'Did you mean "console"'),
        ("SELECT txt FROM console", "text"),
        ("SELECT error('told')", "told"),
        ("FROM recording", "recording does not exist"),  # not a Python variable either
        ("FROM '/etc/passwd'", "passwd"),
        ("FROM read_text('/etc/passwd')", "Permission"),
        ("FROM glob('/*')", "Permission"),
        ("FROM read_parquet('https://example.org/x.parquet')", ""),
    ],
)
def test_refused_by_duckdb_in_its_words(database: Database, sql: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        database.query(sql).all()
    assert words in error.value.detail
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO 'out.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'x.db'",
        "SET enable_external_access = true",
        "SET memory_limit = '1TB'",
        "PRAGMA database_list",
        "CREATE TABLE t AS SELECT 1",
        "INSTALL httpfs",
        "DROP VIEW console",
    ],
)
def test_only_queries(database: Database, sql: str) -> None:
    with pytest.raises(UsageError, match="Not a single query"):
        database.query(sql)


def test_other_recordings_are_out_of_reach(recording: Recording, tmp_path: Path) -> None:
    other = make_recording(tmp_path / "other.retro")
    with Database(other):
        pass
    stolen = next((other.cache / "index" / "console").iterdir())
    with Database(recording) as database:
        for path in (stolen, recording.cache / "index" / "../../.." / stolen.relative_to(tmp_path)):
            with pytest.raises(UsageError, match="cannot answer"):
                database.query(f"FROM '{path}'").all()


def test_a_link_in_the_index_is_not_followed(recording: Recording, tmp_path: Path) -> None:
    other = make_recording(tmp_path / "other.retro")
    with Database(other):
        pass
    with Database(recording):
        pass
    mine, theirs = (next((r.cache / "index/console").iterdir()) for r in (recording, other))
    mine.rename(tmp_path / "aside")
    mine.symlink_to(theirs)
    store = IndexStore(recording)
    assert store.done("console") == []


def test_what_was_stale_is_said(recording: Recording, caplog: pytest.LogCaptureFixture) -> None:
    with Database(recording) as database:
        assert database.notes == []
    spoil(recording.cache / "index" / "meta.json", b"{")
    with Database(recording) as database:
        assert caplog.messages == ["Made anew: the index was damaged or of another version."]
        assert database.query("SELECT count(*) FROM console").all() == [(1,)]


def test_saves_parquet_only_where_it_was_told(recording: Recording, tmp_path: Path) -> None:
    wanted = tmp_path / "it's.parquet"
    with Database(recording, output=wanted) as database:
        database.save("SELECT text FROM console -- all of it", wanted)
        with pytest.raises(UsageError, match="cannot answer"):
            database.save("FROM console", tmp_path / "other.parquet")
    assert wanted.read_bytes().startswith(b"PAR1")


def test_a_billion_rows_take_no_memory(database: Database) -> None:
    rows = iter(database.query("SELECT range, range * 3 FROM range(1_000_000_000)"))
    for _ in range(50_000):
        next(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1_000_000):
        next(rows)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10  # KiB; a million rows held would be 130 MB


NEVER_ENDS = (
    "SELECT count(*) FROM range(1e9::BIGINT) a, range(1e9::BIGINT) b WHERE a.range * b.range = -1"
)


@pytest.mark.parametrize("sql", [NEVER_ENDS, NEVER_ENDS.replace("count(*)", "a.range")])
def test_interrupted(database: Database, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while DuckDB works: at once, and the database stays usable."""
    submit = database._thread.submit

    def submit_and_press(work):
        monkeypatch.undo()  # once
        future = submit(work)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return future

    monkeypatch.setattr(database._thread, "submit", submit_and_press)
    with pytest.raises(KeyboardInterrupt):
        database.query(sql).all()
    assert database.query("SELECT 1").all() == [(1,)]


@pytest.mark.parametrize("package", ["pyarrow", "pandas", "polars"])
def test_frames_name_the_package_they_need(
    database: Database, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    form = {"pyarrow": "arrow"}.get(package, package)
    with pytest.raises(EnvironmentLacks, match=f"pip install {package}"):
        getattr(database.query("FROM console"), form)()


def test_without_duckdb(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'retrograde\[index\]'"):
        Database(recording)


def test_a_table_that_is_not_built_is_named(recording: Recording) -> None:
    with Database(recording) as database:
        assert database.query("SELECT count(*) FROM Calls").all() == [(0,)]
        (note,) = database.notes
        assert "calls" in note
        assert "retrograde index" in note
    with pytest.raises(UsageError, match="have not been collected"):
        retrograde.open(recording.path).calls("idle")


@pytest.mark.parametrize(
    ("sql", "expected"),
    (
        ("SELECT 0xff, 0XFf + 1", (255, 256)),
        ("SELECT 0xffffffff81000000", (0xFFFFFFFF81000000,)),
        ("SELECT -0x10, (0x10), 0x10::UBIGINT", (-16, 16, 16)),
        ("SELECT '0xff', $$0xff$$ /* 0xff */ -- 0xff", ("0xff", "0xff")),
        ("SELECT \"0xff\" FROM (SELECT 7 AS \"0xff\") WHERE '\u00e9' = '\u00e9' AND 0x7 = 7", (7,)),
        ("SELECT 10 AS a0x1f, 0 AS xff", (10, 0)),
    ),
)
def test_numbers_may_be_hexadecimal(database: Database, sql: str, expected: object) -> None:
    assert database.query(sql).all() == [expected]


def test_an_address_of_more_than_64_bits_is_refused(database: Database) -> None:
    with pytest.raises(UsageError, match="0x1ffffffffffffffff has more than 64 bits"):
        database.query("SELECT 0x1ffffffffffffffff")


def test_an_address_is_found_by_its_hexadecimal_number(recording: Recording) -> None:
    write_calls(recording)
    with Database(recording) as database:
        rows = database.query(f"SELECT position FROM calls WHERE target = {READ:#x}").all()
    assert rows == [(10,)]


def test_a_table_has_to_be_named(recording: Recording) -> None:
    """Its files are checked because its name is in the query."""
    hidden = "SELECT count(*) FROM query_table('con' || 'sole')"
    with Database(recording) as database:
        with pytest.raises(UsageError, match="The table console has to be named"):
            database.query(hidden).all()
        assert database.query("DESCRIBE console").all()
        assert database.query(f"{hidden} -- console").all() == [(1,)]


def test_a_table_of_a_part_is_said_to_be_one(recording: Recording) -> None:
    columns = {"position": [7], "kind": ["space"], "value": [1]}
    IndexStore(recording).write("context", 0, 500, columns)
    with Database(recording) as database:
        assert database.query("SELECT value FROM context").all() == [(1,)]
        (note,) = database.notes
        assert "The table context is of a part of the recording" in note
