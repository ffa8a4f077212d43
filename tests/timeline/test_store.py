"""Checkpoints that came from a stranger: only files of known names are opened or removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from retrograde.errors import RecordingError
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.timeline import store as store_module
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Origin
from tests.damage import document, rewrite
from tests.hostile import KINDS, fingerprint, make_victim, put
from tests.recording.handmade import make_recording

RAM = 1 << 20
ORIGIN = Origin(2, "a", "b", RAM)
FILES = (
    *("index.json", "index.copy.json", "pages.bin", "sums.bin", "tables.bin"),
    "machine.qcow2",
)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "hand.retro")


def publish(recording: Recording) -> Path:
    """Make a store without checkpoints; returns its folder."""
    store = CheckpointStore.create(recording, ORIGIN)
    store.use_reserve()
    store.folder.create("machine.qcow2").close()
    with store.folder.append("pages.bin") as file:
        file.write(bytes(4096))
    store.publish().close()
    return recording.cache / "checkpoints"


def opens(recording: Recording) -> bool:
    store = CheckpointStore.open(recording, ORIGIN)
    if store is not None:
        store.close()
    return store is not None


def test_a_published_store_opens(recording: Recording) -> None:
    folder = publish(recording)
    assert opens(recording)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert [path.name for path in recording.cache.iterdir()] == ["checkpoints"]


def test_a_limit_met_while_publishing_is_not_taken_for_damage(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published before stays, and the error is the system's own."""
    folder = publish(recording)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def refuse(_folder: object, _index: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(store_module, "check_sizes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        publish(recording)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["../../replay.log", "/etc/passwd", "..", "", "notes.txt"])
def test_a_name_in_the_index_that_is_no_file_of_ours(name: str, recording: Recording) -> None:
    index = publish(recording) / "index.json"
    for kind in ("sizes", "sums"):
        rewrite(index, **{kind: document(index)[kind] | {name: 6}})
        assert not opens(recording)
    sizes, sums = document(index)["sizes"], document(index)["sums"]
    rewrite(index, sizes=sizes | {name: 6}, sums=sums | {name: 6})
    assert not opens(recording)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", FILES)
def test_special_files_are_made_anew(name: str, kind: str, recording: Recording) -> None:
    folder = publish(recording)
    put(kind, folder / name)
    assert opens(recording) == name.startswith("index.")  # of which there is a copy
    if kind == "directory":
        with pytest.raises(RecordingError, match="did not make"):
            publish(recording)
        assert (folder / name / "precious").read_bytes() == b"precious"
    else:
        publish(recording)
        assert opens(recording)


def test_an_endless_index_is_not_read(recording: Recording) -> None:
    folder = publish(recording)
    for name in FILES[:2]:
        with (folder / name).open("ab") as file:
            file.truncate(1 << 42)
    assert not opens(recording)


def test_links_in_place_of_stores_are_not_followed(recording: Recording, tmp_path: Path) -> None:
    victim = make_victim(tmp_path / "victim")
    before = fingerprint(victim)
    recording.cache.mkdir()
    for name in ("checkpoints", "checkpoints.01234567"):
        (recording.cache / name).symlink_to(victim)
    publish(recording)
    assert opens(recording)
    assert fingerprint(victim) == before
    assert [path.name for path in recording.cache.iterdir()] == ["checkpoints"]


def test_what_is_foreign_stays_and_is_said_before_the_replay(recording: Recording) -> None:
    folder = publish(recording)
    (folder / "notes.txt").write_bytes(b"precious")
    left = recording.cache / "checkpoints.01234567"
    left.mkdir()
    (left / "notes.txt").write_bytes(b"precious")
    before = fingerprint(recording.cache)
    with pytest.raises(RecordingError, match="did not make"):
        CheckpointStore.create(recording, ORIGIN)
    assert fingerprint(recording.cache) == before
    (folder / "notes.txt").unlink()
    publish(recording)
    assert (left / "notes.txt").read_bytes() == b"precious"


def test_nothing_is_left_where_there_is_no_room(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        CheckpointStore.create(recording, ORIGIN)
    assert list(recording.cache.iterdir()) == []


def test_a_limit_on_files_is_no_defect_of_ours(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published cannot be opened for now: that is said, and nothing else."""

    def fail(_cache: Folder, _origin: Origin) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(CheckpointStore, "_open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        publish(recording)
