"""Errors of Python, the system and libraries: sentences, and the exit code that fits."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks, InternalError, RecordingError, RetrogradeError
from retrograde.foreign import in_our_words
from tests.command import assert_error, retrograde


def system(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def raised(error: Exception) -> Exception:
    """Return `error` with the traceback of somebody who raised it."""
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (system(errno.ENOSPC), EnvironmentLacks, "output cannot be written"),
        (system(errno.ENOSPC, "/x"), EnvironmentLacks, "/x cannot be written"),
        (system(errno.EMFILE, "/x"), EnvironmentLacks, "ulimit -n"),
        (system(errno.ENFILE), EnvironmentLacks, "ulimit -n"),
        (system(errno.ENOMEM), EnvironmentLacks, "Memory ran out"),
        (MemoryError(), EnvironmentLacks, "Memory ran out"),
        (system(errno.EAGAIN), EnvironmentLacks, "No further process"),
        (RuntimeError("can't start new thread"), EnvironmentLacks, "No further thread"),
        (system(errno.EACCES, "/x"), EnvironmentLacks, "/x cannot be used: Permission denied"),
        (system(errno.EROFS, "/x"), EnvironmentLacks, "/x cannot be used: Read-only"),
        (system(errno.ENOENT, "/x"), EnvironmentLacks, "/x cannot be used: No such file"),
        (ModuleNotFoundError("No module named 'numpy'"), EnvironmentLacks, "numpy"),
        (ImportError("x.so: failed to map segment from shared object"), EnvironmentLacks, "Memory"),
        (ExceptionGroup("some", [ValueError(), MemoryError()]), InternalError, "ValueError"),
        (ExceptionGroup("some", [MemoryError()]), EnvironmentLacks, "Memory"),
        (RecordingError("Bad.", "Do."), RecordingError, "Bad."),
        (system(errno.EBADF), InternalError, "OSError"),
        (RuntimeError("hm"), InternalError, "RuntimeError in test_foreign.py"),
        (KeyError("\x1b[31m\n x"), InternalError, "report"),
    ],
)
def test_in_our_words(error: Exception, kind: type[RetrogradeError], words: str) -> None:
    ours = in_our_words(raised(error))
    assert type(ours) is kind
    assert words in str(ours)
    assert ours.remedy
    assert "\x1b" not in str(ours)


def test_the_database_has_too_little_memory() -> None:
    duckdb = pytest.importorskip("duckdb")
    small = duckdb.connect(config={"memory_limit": "2MB", "temp_directory": ""})
    with pytest.raises(duckdb.Error) as caught:
        small.execute("SELECT list(i) FROM range(10_000_000) t(i)").fetchall()
    assert in_our_words(caught.value).exit_code == EnvironmentLacks.exit_code


def test_the_database_may_open_no_file() -> None:
    """Nothing is wrong with the file that it names."""
    duckdb = pytest.importorskip("duckdb")
    ours = in_our_words(duckdb.IOException('Cannot open file "x.parquet": Too many open files'))
    assert isinstance(ours, EnvironmentLacks)
    assert "ulimit -n" in ours.remedy


def test_the_database_finds_no_table(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(duckdb.Error) as caught:
        duckdb.connect().execute(f"SELECT * FROM '{tmp_path}/a.parquet'").fetchall()
    ours = in_our_words(caught.value)
    assert isinstance(ours, RecordingError)
    assert "retrograde index" in ours.remedy


DEFECT = (
    sys.executable,
    "-c",
    "from retrograde.recording.bundle import Recording\n"
    "Recording.open = lambda path: {}[path]\n"
    "from retrograde.cli.main import main\n"
    "main()",
)


def test_what_is_our_fault_asks_for_a_report() -> None:
    done = retrograde("info", "x.retro", program=DEFECT)
    assert_error(done, 70, "defect of retrograde: KeyError", "report", "x.retro")


def test_debug_shows_where_and_keeps_the_exit_code() -> None:
    done = retrograde("--debug", "info", "x.retro", program=DEFECT)
    assert done.status == 70
    assert "Traceback" in done.stderr
    assert "defect of retrograde" in done.stderr
    done = retrograde("--debug", "info", "/no/such.retro")
    assert done.status == 2
    assert "Traceback" in done.stderr
