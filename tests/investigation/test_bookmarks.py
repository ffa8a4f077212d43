"""Bookmarks of a recording that came from a stranger."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from retrograde.errors import RecordingError
from retrograde.investigation.bookmarks import Bookmarks
from retrograde.recording.bundle import Recording
from tests.hostile import KINDS, put
from tests.recording.handmade import make_recording


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    recording = make_recording(tmp_path / "hand.retro")
    recording.cache.mkdir()
    return recording.path


def bookmarks(folder: Path) -> Bookmarks:
    return Bookmarks(Recording.open(folder))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_special_files_hold_no_bookmarks(kind: str, folder: Path) -> None:
    put(kind, folder / "cache" / "bookmarks.json")
    assert bookmarks(folder).all() == {}
    if kind == "directory":
        with pytest.raises(RecordingError, match="is a directory"):
            bookmarks(folder).add("here", 7)
    else:
        bookmarks(folder).add("here", 7)
        assert bookmarks(folder).all() == {"here": 7}


def test_names_that_nobody_could_have_given_are_not_shown(folder: Path) -> None:
    names = {"good": 1, "\x1b]0;x\x07": 2, "end": 3, "../x": 4, "\u202e": 5}
    (folder / "cache" / "bookmarks.json").write_bytes(msgspec.json.encode(names))
    assert bookmarks(folder).all() == {"good": 1}


def test_too_many_to_be_ours(folder: Path) -> None:
    names = {f"n{number}": number for number in range(100_000)}
    (folder / "cache" / "bookmarks.json").write_bytes(msgspec.json.encode(names))
    assert bookmarks(folder).all() == {}


def test_a_cache_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    (folder / "cache").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "cache").symlink_to(tmp_path / "elsewhere")
    assert bookmarks(folder).all() == {}
    with pytest.raises(RecordingError, match="It is a link"):
        bookmarks(folder).add("here", 7)
    assert list((tmp_path / "elsewhere").iterdir()) == []
