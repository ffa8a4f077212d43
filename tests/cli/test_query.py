"""`retrograde query`: forms of an answer, and ways not to get one."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
from pathlib import Path

import pytest

from retrograde.recording.bundle import Recording
from tests.cli.session import Session
from tests.command import RETROGRADE, assert_error, retrograde, start
from tests.damage import rewrite
from tests.recording.handmade import make_recording

SQL = (
    "SELECT 7::UBIGINT AS address, position + 1_000_000 AS later, text, 'a'::BLOB AS b FROM console"
)
ESCAPES = "SELECT chr(27) || '[2J' || chr(10) || chr(8238) AS x"
FOREVER = "SELECT range FROM range(1_000_000_000_000)"


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "hand.retro")


def test_table_for_people(recording: Recording) -> None:
    lines = retrograde("query", recording.path, SQL).stdout.decode().splitlines()
    assert lines[0].split() == ["address", "later", "text", "b"]
    assert lines[2].split() == ["0x7", "1_001_000", "hello", "61"]


def test_a_table_is_no_way_to_a_terminal(recording: Recording) -> None:
    """What the guest wrote does not reach the terminal as commands."""
    shown = retrograde("query", recording.path, ESCAPES).stdout
    assert shown.decode().splitlines()[2] == r"\x1b[2J\n\u202e"


@pytest.mark.parametrize("form", ["csv", "json"])
def test_data_is_data_but_on_a_terminal(recording: Recording, session: Session, form: str) -> None:
    """CSV keeps what it says for programs; JSON says it in escapes everywhere."""
    words = ("query", "--format", form, recording.path, ESCAPES)
    piped = retrograde(*words).stdout.decode()
    session.start(*words, program=RETROGRADE)
    shown = session.read_until(b"202e" + (b'"}' if form == "json" else b"")).decode()
    assert session.end()[0] == 0
    assert not {"\x1b", "\u202e"} & set(shown)
    if form == "csv":
        assert list(csv.reader(io.StringIO(piped)))[1] == ["\x1b[2J\n\u202e"]
        assert shown.split()[1] == r"\x1b[2J\n\u202e"
    else:
        assert json.loads(piped) == [{"x": "\x1b[2J\n\u202e"}]
        assert json.loads(shown + "]") == json.loads(piped)


def test_json(recording: Recording) -> None:
    row = {"address": 7, "later": 1_001_000, "text": "hello", "b": "61"}
    assert retrograde("query", "--json", recording.path, SQL).json() == [row]
    assert retrograde("query", "--format", "json", recording.path, SQL).json() == [row]
    assert retrograde("query", "--json", recording.path, "FROM calls").json() == []


def test_csv(recording: Recording) -> None:
    done = retrograde("query", "--format", "csv", recording.path, "SELECT 'a,\"b\"' x, NULL y")
    assert list(csv.reader(io.StringIO(done.stdout.decode()))) == [["x", "y"], ['a,"b"', ""]]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "txt"])
def test_output_by_its_name(recording: Recording, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"rows.{ending}"
    done = retrograde("query", recording.path, SQL, "-o", output)
    assert (done.status, done.stdout, done.stderr) == (0, b"", "")
    content = output.read_bytes()
    starts = {"csv": b"address,", "json": b"[\n{", "parquet": b"PAR1", "txt": b"address  "}
    assert content.startswith(starts[ending])
    assert list(tmp_path.glob("*.partial")) == []


def test_what_was_there_stays_when_the_query_fails(recording: Recording, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    output.write_text("precious")
    sql = "SELECT CASE WHEN range > 50_000 THEN error('late') END FROM range(100_000)"
    assert_error(retrograde("query", recording.path, sql, "-o", output), 2, "late")
    assert output.read_text() == "precious"
    assert list(tmp_path.glob("*.partial")) == []


def test_errors(recording: Recording, tmp_path: Path) -> None:
    assert_error(retrograde("query", recording.path, "FROM consol"), 2, "Did you mean")
    assert_error(retrograde("query", recording.path, SQL, "--format", "parquet"), 2, "-o")
    assert_error(retrograde("query", recording.path, SQL, "--json", "--format", "csv"), 2)
    nowhere = tmp_path / "no" / "x.csv"
    assert_error(retrograde("query", recording.path, SQL, "-o", nowhere), 2, "cannot be written")
    assert_error(retrograde("query", tmp_path, SQL), 2, "not a recording")


def test_what_was_stale_is_said_once(recording: Recording) -> None:
    retrograde("query", recording.path, SQL)
    meta = recording.cache / "index" / "meta.json"
    rewrite(meta, recording="0" * 64)
    again = [retrograde("query", recording.path, SQL) for _ in range(2)]
    assert "warning: Made anew: the index was made from another recording." in again[0].stderr
    assert "warning" not in again[1].stderr
    assert again[0].stdout == again[1].stdout


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_an_endless_answer_is_stopped(recording: Recording, form: str) -> None:
    words = ("query", recording.path, FOREVER, "--format", form)
    with start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as query:
        assert query.stdout
        assert query.stderr
        assert query.stdout.read(1 << 20)
        query.send_signal(signal.SIGINT)
        query.stdout.read()
        assert query.wait(30) == 130
        assert query.stderr.read().decode().strip().endswith("Interrupted.")


def test_a_reader_that_leaves(recording: Recording) -> None:
    words = ("query", recording.path, FOREVER)
    with start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as query:
        assert query.stdout
        assert query.stderr
        query.stdout.read(1000)
        query.stdout.close()
        assert query.wait(30) == 128 + signal.SIGPIPE
        assert query.stderr.read() == b""


def test_memory_runs_out(recording: Recording) -> None:
    """It is the machine that lacks something; nothing is wrong with the question."""
    sql = "SELECT list(range) FROM range(1_000_000_000)"
    done = retrograde("query", recording.path, sql, prefix=("prlimit", f"--as={3 << 30}"))
    assert_error(done, 3, "memory")


def test_the_disk_is_full(recording: Recording, tmp_path: Path) -> None:
    """RLIMIT_FSIZE ends a file as a full disk does."""
    sql = "SELECT hash(range) FROM range(1_000_000)"
    for output in ("rows.csv", "rows.parquet"):
        prefix = ("prlimit", f"--fsize={1 << 20}")
        done = retrograde("query", recording.path, sql, "-o", tmp_path / output, prefix=prefix)
        assert_error(done, 3, "cannot")
        assert sorted(tmp_path.glob("rows*")) == []
