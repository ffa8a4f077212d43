"""An index that came from a stranger names nothing and leads nowhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrograde.errors import RecordingError
from retrograde.index.tables.store import IndexStore, has_table
from retrograde.recording.bundle import Recording
from tests.damage import rewrite
from tests.hostile import KINDS, fingerprint, make_victim, put
from tests.recording.handmade import make_recording


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "hand.retro")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return make_victim(tmp_path / "victim")


def fill(recording: Recording) -> Path:
    """Make an index with a row; returns its folder."""
    IndexStore(recording).write("interrupts", 0, 9, {"position": np.array([3])})
    return recording.cache / "index"


def edit(index: Path, **fields: Any) -> None:
    rewrite(index / "meta.json", **fields)


def rows(recording: Recording) -> list[Any]:
    with IndexStore(recording).connect() as connection:
        found: list[Any] = connection.execute("FROM interrupts").fetchall()
    return found


@pytest.mark.parametrize("digest", ["kept", "other"])
def test_no_name_in_meta_json_is_a_path(
    digest: str, recording: Recording, victim: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, index = fingerprint(victim), fill(recording)
    names = [str(victim), str(victim / "blocks"), "../../../victim", "..", ".", "", "/", "x\0y"]
    edit(index, versions=dict.fromkeys(names, 1), makers=dict.fromkeys(names, "x"))
    if digest == "other":
        edit(index, recording="0" * 64)
    IndexStore(recording)
    assert "victim" not in caplog.text
    assert fingerprint(victim) == before
    assert (recording.path / "replay.log").exists()


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("place", ["index", "index/interrupts"])
def test_a_link_in_a_directorys_place(
    place: str, stale: bool, recording: Recording, victim: Path
) -> None:
    before, index = fingerprint(victim), fill(recording)
    if stale:
        edit(index, recording="0" * 64)
    put("directory", recording.cache / place)
    (recording.cache / place / "precious").unlink()
    (recording.cache / place).rmdir()
    (recording.cache / place).symlink_to(victim)
    assert rows(recording) == []
    assert IndexStore(recording).done("interrupts") == []
    IndexStore(recording).write("interrupts", 0, 9, {"position": np.array([4])})
    assert rows(recording) == [(4,)]
    assert fingerprint(victim) == before


def test_a_link_in_the_caches_place(recording: Recording, victim: Path) -> None:
    before = fingerprint(victim)
    recording.cache.symlink_to(victim)
    for ask in (lambda: IndexStore(recording), lambda: has_table(recording, "blocks")):
        with pytest.raises(RecordingError, match="It is a link"):
            ask()
    assert fingerprint(victim) == before


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["meta.json", "interrupts", "interrupts/*"])
def test_special_files(name: str, kind: str, recording: Recording) -> None:
    """Each is made anew, or left where it is with a sentence; none is read."""
    index = fill(recording)
    name = str(next(index.glob(name)).relative_to(index))
    put(kind, index / name)
    try:
        assert rows(recording) == ([(3,)] if name == "meta.json" else [])  # there is a copy
        IndexStore(recording).write("interrupts", 0, 9, {"position": np.array([4])})
        assert rows(recording) == [(4,)]
    except RecordingError as error:
        assert kind == "directory"
        assert "did not make" in str(error)
    if kind == "directory" and name != "interrupts":
        assert (index / name / "precious").read_bytes() == b"precious"


def test_what_is_foreign_stays(recording: Recording) -> None:
    index = fill(recording)
    (index / "interrupts" / "notes.txt").write_bytes(b"precious")
    (index / "elsewhere").mkdir()
    assert rows(recording) == [(3,)]
    edit(index, recording="0" * 64)
    with pytest.raises(RecordingError, match=r"interrupts holds what retrograde did not make"):
        IndexStore(recording)
    assert (index / "interrupts" / "notes.txt").read_bytes() == b"precious"
    (index / "interrupts" / "notes.txt").unlink()
    assert rows(recording) == []
    assert (index / "elsewhere").is_dir()


def test_a_temporary_name_that_is_a_link_is_not_written_through(
    recording: Recording, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, index = fingerprint(victim), fill(recording)
    monkeypatch.setattr("retrograde.index.tables.files._host", lambda: "here")
    monkeypatch.setattr("os.getpid", lambda: 7)
    for interval in ((0, 9), (9, 18)):
        part = f"{interval[0]:019}-{interval[1]:019}.here.7.part"
        (index / "interrupts" / part).symlink_to(victim / "notes.txt")
    store = IndexStore(recording)
    store.write("interrupts", 0, 9, {"position": np.array([4])})
    store.put("interrupts", (9, 18), store.packed("interrupts", (0, 9)))
    assert rows(recording) == [(4,), (4,)]
    assert fingerprint(victim) == before


def test_a_huge_meta_json_is_not_read(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    index = fill(recording)
    for name in ("meta.json", "meta.copy.json"):
        with (index / name).open("ab") as file:
            file.truncate(1 << 42)
    assert rows(recording) == []
    assert caplog.messages == ["Made anew: the index was damaged or of another version."]


def test_a_whole_index_is_opened_without_writing(recording: Recording) -> None:
    index = fill(recording)
    before = (index / "meta.json").stat().st_mtime_ns, index.stat().st_mtime_ns
    assert rows(recording) == [(3,)]
    assert ((index / "meta.json").stat().st_mtime_ns, index.stat().st_mtime_ns) == before


def test_a_limit_on_files_is_not_an_empty_index(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(recording)
    store = IndexStore(recording)

    def fail(*_args: object, **_named: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", fail)
    asked = (lambda: store.done("interrupts"), lambda: has_table(recording, "context"))
    for ask in asked:
        with pytest.raises(OSError, match="Too many open files"):
            ask()
