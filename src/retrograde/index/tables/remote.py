"""A recording for workers that do not see the client's folder: they fetch it from a URL.

Behind the URL is the recording alone, as a directory or as `pack` writes it. Its checkpoints
are the client's and come through dask: where they stand was measured, and says where
intervals end. Rows go back the same way. What is fetched is a stranger's: it is checked as a
packed recording is, and must be the one that the client has.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from retrograde.errors import EnvironmentLacks, RecordingError, RetrogradeError, UsageError
from retrograde.recording.archive import SUFFIX, unpack, zstd
from retrograde.recording.bundle import INPUTS, MANIFEST, Recording
from retrograde.recording.manifest import (
    MANIFEST_LIMIT,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from retrograde.timeline import storefiles

Checkpoints: TypeAlias = dict[str, bytes]
"""The files of `cache/checkpoints` by name, each compressed."""

FOLDER: Final = "retrograde"
"""In a worker's local directory: copies of recordings, which dask removes with it."""

_REMEDY: Final = "Put this recording there, as a directory or as `retrograde pack` writes it."

_lock = threading.Lock()
_users: Counter[Path] = Counter()


@dataclass(frozen=True)
class Source:
    """A URL, and which recording has to be there."""

    url: str
    name: str
    manifest: Manifest

    @classmethod
    def of(cls, recording: Recording, url: str) -> Self:
        """Describe `recording`, to be fetched from `url`, which is not opened yet.

        Raises UsageError for what is no URL, EnvironmentLacks when a package is missing
        for it, RecordingError for a recording without digests to know it by.
        """
        _opened(url)
        if not recording.manifest.files:
            raise RecordingError(
                f"{recording.name} was never finished: workers could not tell it from another.",
                "Pack and unpack it first, which adds what is missing.",
            )
        return cls(url, recording.name, recording.manifest)


def checkpoints_in(recording: Recording) -> Checkpoints:
    """Return the checkpoints of `recording`, to be sent."""
    checkpoints = {}
    folder = recording.open_cache().folder(storefiles.FOLDER)
    for name in filter(storefiles.is_ours, folder.files()):
        data = io.BytesIO()
        with folder.open(name) as file, zstd.open(data, "wb") as stream:
            shutil.copyfileobj(file, stream)
        checkpoints[name] = data.getvalue()
    return checkpoints


@contextlib.contextmanager
def borrowed(source: Source, checkpoints: Checkpoints, place: Path) -> Iterator[Recording]:
    """Lend the copy of a recording in `place`, which belongs to this process.

    The first to ask has it fetched; copies of others that nobody uses then make room.
    Raises UsageError when the URL cannot be read, RecordingError when something else is
    there, EnvironmentLacks when the disk is full.
    """
    key = hashlib.sha256(encode_manifest(source.manifest) + checkpoints[storefiles.INDEX])
    folder = place / FOLDER / key.hexdigest()
    with _lock:
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            for other in folder.parent.iterdir():
                if not _users[other]:
                    shutil.rmtree(other)
            with _reading(source.url):
                _fetch(source, checkpoints, folder)
        _users[folder] += 1
    try:
        yield Recording.open(folder / source.name)
    finally:
        with _lock:
            _users[folder] -= 1


def _fetch(source: Source, checkpoints: Checkpoints, folder: Path) -> None:
    """Make `folder`, which then holds the recording whole and checked."""
    system, path = _opened(source.url)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        if source.url.partition("?")[0].endswith(SUFFIX):
            packed = Path(temporary, "packed")
            system.get_file(path, str(packed))
            recording = unpack(packed, new / source.name)
            _compare(recording.path, source)
        else:
            recording = _copy(system, path.rstrip("/"), source, new / source.name)
        kept = recording.open_cache(make=True).folder(storefiles.FOLDER, make=True)
        for name in filter(storefiles.is_ours, checkpoints):
            with zstd.open(io.BytesIO(checkpoints[name])) as stream, kept.create(name) as file:
                shutil.copyfileobj(stream, file)
        new.rename(folder)


def _copy(system: Any, path: str, source: Source, folder: Path) -> Recording:
    """Copy the files that the client's manifest names, from a directory."""
    (folder / INPUTS).mkdir(parents=True)
    system.get_file(f"{path}/{MANIFEST}", str(folder / MANIFEST))
    _compare(folder, source)
    own = source.manifest.own_files()
    for name in (*own, *(f"{INPUTS}/{entry.name}" for entry in source.manifest.inputs)):
        system.get_file(f"{path}/{name}", str(folder / name))
    recording = Recording.open(folder)
    recording.check_digests()
    recording.check_inputs()
    return recording


def _compare(folder: Path, source: Source) -> None:
    with (folder / MANIFEST).open("rb") as file:
        there = decode_manifest(file.read(MANIFEST_LIMIT + 1), source.url)
    if there != source.manifest:
        raise RecordingError(f"{source.url} is another recording than {source.name}.", _REMEDY)


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system that `url` is in, and the path there."""
    if "://" not in url:
        raise UsageError(f"{url!r} is no URL.", "Give one, as s3://BUCKET/NAME.retro.tar.zst.")
    with _reading(url):
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        system, path = url_to_fs(url)
    return system, path


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    """Put in words what goes wrong while `url` is read and kept."""
    try:
        yield
    except RetrogradeError:
        raise
    except ImportError as error:
        raise EnvironmentLacks(
            f"{url} needs a Python package that is missing: {error}.",
            "Install it here and on all workers (fsspec: pip install 'retrograde[cluster]').",
        ) from error
    except Exception as error:  # every kind of storage has its own
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise EnvironmentLacks(
                f"The disk is full: {url} cannot be kept.", "Free some space and start again."
            ) from error
        gone = isinstance(error, FileNotFoundError)
        why = "it is not there" if gone else " ".join(f"{type(error).__name__} {error}".split())
        raise UsageError(f"{url} cannot be read: {why}.", _REMEDY) from error
