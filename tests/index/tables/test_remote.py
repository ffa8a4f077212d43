"""What workers fetch from a URL: the client's recording, or nothing at all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from retrograde.errors import (
    EnvironmentLacks,
    InputChanged,
    ManifestError,
    RecordingError,
    RetrogradeError,
    UsageError,
)
from retrograde.index.tables import remote
from retrograde.recording.archive import pack
from retrograde.recording.bundle import Recording
from retrograde.recording.manifest import encode_manifest
from tests.recording.handmade import make_recording, replaced
from tests.recording.test_archive import contents, edited, plain

Borrow = Callable[[str], dict[str, bytes]]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """What the client has: a recording, and what are its checkpoints."""
    made = make_recording(tmp_path / "a.retro")
    checkpoints = made.cache / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "index.json").write_bytes(b"{}")
    (checkpoints / "pages.bin").write_bytes(bytes(100_000) + b"page")
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A worker's folder."""
    (tmp_path / "worker").mkdir()
    return tmp_path / "worker"


@pytest.fixture
def borrow(recording: Recording, place: Path) -> Borrow:
    """`borrow(url)`: what a worker then has, by name."""

    def contents_of(url: str) -> dict[str, bytes]:
        source = remote.Source.of(recording, url)
        with remote.borrowed(source, remote.checkpoints_in(recording), place) as copy:
            assert copy.name == recording.name
            return contents(copy.path)

    return contents_of


def other(recording: Recording) -> Recording:
    """Return another recording, with the same files."""
    copy = recording.path.with_name("b.retro")
    shutil.copytree(recording.path, copy)
    manifest = replaced(recording, created="2026-01-02T00:00:00+00:00")
    (copy / "manifest.json").write_bytes(encode_manifest(manifest))
    return Recording.open(copy)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_fetched_once(
    packed: bool, scheme: str, recording: Recording, borrow: Borrow, tmp_path: Path
) -> None:
    there, there_is = tmp_path / "there", fsspec.filesystem(scheme)
    there.mkdir()
    shutil.copytree(recording.path, there / "x", ignore=shutil.ignore_patterns("cache"))
    pack(recording, there / "x.tar.zst")
    if scheme == "memory":
        there_is.put(str(there), str(there), recursive=True)
    expected = contents(recording.path)
    assert borrow(f"{scheme}://{there}/x{'.tar.zst' * packed}") == expected
    there_is.rm(str(there), recursive=True)
    assert borrow(f"{scheme}://{there}/x{'.tar.zst' * packed}") == expected


def test_what_nobody_uses_makes_room(recording: Recording, place: Path) -> None:
    others = other(recording)
    first, second = (remote.Source.of(one, f"file://{one.path}") for one in (recording, others))
    checkpoints = remote.checkpoints_in(recording)
    with remote.borrowed(first, checkpoints, place) as used:
        with remote.borrowed(second, checkpoints, place) as unused:
            assert used.log_path.exists()
        (recording.cache / "checkpoints" / "index.json").write_bytes(b"others")
        with remote.borrowed(first, remote.checkpoints_in(recording), place) as again:
            assert used.log_path.exists()
            assert not unused.log_path.exists()
            assert again.path != used.path


def truncated(recording: Recording, url: Path) -> None:
    pack(recording, url)
    os.truncate(url, url.stat().st_size - 10)


def of_another(recording: Recording, url: Path) -> None:
    pack(other(recording), url)


def with_a_way_out(recording: Recording, url: Path) -> None:
    edited(recording, lambda members: members.insert(1, plain("../evil"))).rename(url)


def directory_of_another(recording: Recording, url: Path) -> None:
    other(recording).path.rename(url)


def damaged_directory(recording: Recording, url: Path) -> None:
    shutil.copytree(recording.path, url)
    (url / "inputs" / "kernel").write_bytes(b"another")


def directory_with_a_hole(recording: Recording, url: Path) -> None:
    shutil.copytree(recording.path, url)
    (url / "replay.log").unlink()


@pytest.mark.parametrize(
    ("make", "name", "error", "match"),
    [
        (truncated, "x.tar.zst", RecordingError, "not a packed recording"),
        (of_another, "x.tar.zst", RecordingError, "another recording than a.retro"),
        (with_a_way_out, "x.tar.zst", ManifestError, "'../evil', not in its manifest"),
        (lambda *_: None, "x.tar.zst", UsageError, "x.tar.zst cannot be read: it is not there"),
        (directory_of_another, "x", RecordingError, "another recording than a.retro"),
        (damaged_directory, "x", InputChanged, "kernel of a.retro changed"),
        (directory_with_a_hole, "x", UsageError, "x cannot be read: it is not there"),
    ],
)
def test_what_is_refused_leaves_nothing(
    make: Callable[[Recording, Path], None],
    name: str,
    error: type[RetrogradeError],
    match: str,
    recording: Recording,
    borrow: Borrow,
    place: Path,
    tmp_path: Path,
) -> None:
    make(recording, tmp_path / name)
    with pytest.raises(error, match=match) as caught:
        borrow(f"file://{tmp_path / name}")
    assert caught.value.remedy
    assert list((place / remote.FOLDER).iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_full_disk(
    recording: Recording,
    borrow: Borrow,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(remote, "unpack", full)
    pack(recording, tmp_path / "x.tar.zst")
    with pytest.raises(EnvironmentLacks, match="The disk is full"):
        borrow(f"file://{tmp_path}/x.tar.zst")
    assert list((place / remote.FOLDER).iterdir()) == []


def test_what_is_no_url(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("a.tar.zst", "nosuch://a.tar.zst"):
        with pytest.raises(UsageError, match=bad):
            remote.Source.of(recording, bad)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(EnvironmentLacks, match="Install s3fs"):
        remote.Source.of(recording, "s3://bucket/a.tar.zst")
    unfinished = replaced(recording, complete=False, ending="killed", files={})
    with pytest.raises(RecordingError, match="never finished"):
        remote.Source.of(Recording(recording.folder, unfinished), "memory://a.tar.zst")
