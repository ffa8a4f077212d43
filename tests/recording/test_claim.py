"""Files that take their name when they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from retrograde.errors import RetrogradeError, UsageError
from retrograde.recording.bundle import Draft
from retrograde.recording.claim import PARTIAL, made_whole, writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    target.write_text("old")
    with made_whole(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["x.csv"]


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    with pytest.raises(KeyboardInterrupt), made_whole(target) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_what_a_killed_maker_left_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / f"x.csv{PARTIAL}").write_text("half of it, and longer")
    with made_whole(tmp_path / "x.csv") as partial:
        assert partial.read_text() == ""
        partial.write_text("whole")
    assert (tmp_path / "x.csv").read_text() == "whole"
    assert names(tmp_path) == ["x.csv"]


def test_two_at_once(tmp_path: Path) -> None:
    with made_whole(tmp_path / "x.csv") as partial:
        partial.write_text("first")
        with pytest.raises(UsageError, match="being made"), made_whole(tmp_path / "x.csv"):
            pass
    assert (tmp_path / "x.csv").read_text() == "first"


def test_a_link_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "x.csv"
    target.symlink_to("there/y.csv")
    with made_whole(target) as partial:
        partial.write_text("whole")
    assert target.is_symlink()
    assert (tmp_path / "there" / "y.csv").read_text() == "whole"
    assert names(tmp_path / "there") == ["y.csv"]


def test_a_pipe_is_written_to_itself(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with made_whole(pipe) as path:
        path.write_text("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("place", ["no/x.csv", "file/x.csv", f"{'n' * 300}"])
def test_a_wrong_place(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"), made_whole(tmp_path / place):
        pass


def test_a_full_disk_is_no_wrong_place() -> None:
    """It is told as such, by the file's name: writing itself names none."""
    with pytest.raises(OSError, match="no place") as caught, writing(Path("no place")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("call", ["open", "posix_fallocate"])
def test_a_draft_that_cannot_be_begun(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch, pytest.raises(RetrogradeError, match="Too many open"):
        patch.setattr(os, call, fail)
        Draft.create(tmp_path / "x.retro")
    assert names(tmp_path) == []


def test_nothing_is_left_of_what_was_never_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, size: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(KeyboardInterrupt), made_whole(tmp_path / "x.csv"):
        pass
    assert names(tmp_path) == []
