"""The recording directory: opening one, checking it, and making a new one.

::

    boot.retro/
      manifest.json     see manifest
      inputs/NAME       files the machine was started with
      replay.log        QEMU's rr log (see rrshutdown)
      machine.qcow2     image for snapshots, mostly without one
      console.log       bytes of the first serial port
      ports.log         bytes of all ports, where there are others that are kept (see ports)
      schedule.log      which processor ran when, where there are several (see schedule)
      cache/            derived data, safe to delete
      reserve           only while recording: room for the final manifest

A recording is written as `boot.retro.partial` and renamed when its manifest is final.
What a crash leaves under that name opens as an incomplete recording.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from retrograde.errors import (
    EnvironmentLacks,
    InputChanged,
    LogCorrupt,
    RecordingError,
    UsageError,
)
from retrograde.held import Held
from retrograde.position import parse_position
from retrograde.recording.claim import PARTIAL, claim_folder
from retrograde.recording.folder import Folder
from retrograde.recording.manifest import (
    MANIFEST_LIMIT,
    FileDigest,
    FileName,
    InputFile,
    Manifest,
    decode_manifest,
    encode_manifest,
    input_name,
)
from retrograde.recording.sparse import copy_sparse

if TYPE_CHECKING:
    from retrograde.recording.console import ConsoleMap
    from retrograde.recording.rrlog import RrLog
    from retrograde.recording.schedule import Schedule

MANIFEST = "manifest.json"
LOG: Final = "replay.log"
CONSOLE: Final = "console.log"
IMAGE: Final = "machine.qcow2"
PORTS: Final = "ports.log"
SCHEDULE: Final = "schedule.log"
INPUTS = "inputs"
CACHE = "cache"
RESERVE = "reserve"

RESERVE_BYTES = 64 << 10
"""Given back when a recording is finished, so that a full disk does not prevent it."""

COPY_LIMIT = 64 << 20
"""Inputs up to this many bytes are copied; larger ones are linked to where they are."""


ANNOUNCED_SECONDS = 2.0
"""A wait longer than this says what it waits for."""

_log = logging.getLogger(__name__)

_DAMAGED = "This copy is damaged: take the recording from its source again."


class Recording:
    """A recording on disk, opened for reading. Made by `Recording.open`.

    Its files are read through `folder`. Paths are for messages, and for programs that take
    nothing else.
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.path = folder.path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the recording at `path`.

        Reads the manifest only. Raises RecordingError (ManifestError, FormatTooNew)
        when there is none, it is not valid, or a file of the recording is missing or is
        no plain file.
        """
        place = Path(path)
        try:
            folder = Folder.at(place.absolute())
            with folder.open(MANIFEST) as file:
                data = file.read(MANIFEST_LIMIT + 1)
        except OSError as error:
            raise RecordingError(
                f"{place} is not a recording: {error.strerror} reading its {MANIFEST}.",
                "Name a directory made by `retrograde record` (packed ones: unpack first).",
            ) from error
        recording = cls(folder, decode_manifest(data, place.name))
        recording._check_files()
        return recording

    def __repr__(self) -> str:
        return f"<Recording {self.path.name}: {self.manifest.machine.target}, end {self.end:_}>"

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.name

    @property
    def log_path(self) -> Path:
        """QEMU's rr log."""
        return self.path / LOG

    @property
    def console_path(self) -> Path:
        """Bytes of the first serial port."""
        return self.path / CONSOLE

    @property
    def cache(self) -> Path:
        """Where derived data lives; may not exist. It is read through `open_cache`."""
        return self.path / CACHE

    def input_path(self, name: str) -> Path:
        """Path of the input called `name`. It is read through `open_input`."""
        return self.path / INPUTS / name

    def open_own(self, name: FileName) -> BufferedReader:
        """Open one of the recording's own files; raises RecordingError when that cannot be."""
        try:
            return self.folder.open(name)
        except FileNotFoundError as error:
            raise RecordingError(f"{self.name} has no {name}.", _DAMAGED) from error
        except OSError as error:
            raise RecordingError(
                f"{name} of {self.name} cannot be read: {error.strerror}.", _DAMAGED
            ) from error

    def open_input(self, recorded: InputFile) -> BufferedReader:
        """Open an input, which may be a link to where a large one was; raises InputChanged."""
        try:
            return self.folder.folder(INPUTS).open(recorded.name, follow=True)
        except OSError as error:
            raise InputChanged(
                f"The input {recorded.name} of {self.name} is gone: {error.strerror}.",
                self._put_back(recorded),
            ) from error

    def open_cache(self, *, make: bool = False) -> Folder:
        """Open the directory of derived data, made if it is not there and `make` is set.

        Raises RecordingError where something else stands in its place, else OSError.
        """
        try:
            return self.folder.folder(CACHE, make=make)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise RecordingError(
                f"{self.cache} is not a directory of this recording: {error.strerror}.",
                "Remove it; what belongs there is made anew.",
            ) from error

    def program(self) -> Path | None:
        """Return the path of what the machine runs, None where no input is an ELF file."""
        for entry in self.manifest.inputs:
            with self.open_input(entry) as file:
                if file.read(4) == b"\x7fELF":
                    return self.input_path(entry.name)
        return None

    @property
    def complete(self) -> bool:
        """Whether QEMU finished the log itself."""
        return self.manifest.complete

    @functools.cached_property
    def end(self) -> int:
        """The last position a replay reaches."""
        if self.manifest.complete:
            return self.manifest.end
        return self.log().summary().end

    def log(self) -> RrLog:
        """Open the rr log for reading."""
        from retrograde.recording.rrlog import RrLog

        version = self.manifest.qemu.log_version
        return RrLog.open(self.log_path, salvage=not self.complete, unfinished=version)

    def schedule(self) -> Schedule:
        """Return which processor ran when, of a machine with several.

        Raises RecordingError where it is damaged or of another machine.
        """
        from retrograde.recording.schedule import SCHEDULE_LIMIT, read_schedule

        with self.open_own(SCHEDULE) as file:
            content = file.read(SCHEDULE_LIMIT)
        return read_schedule(content, self.manifest.machine.vcpus, whole=self.complete)

    def console_bytes(self) -> bytes:
        """Return what the first serial port put out."""
        with self.open_own(CONSOLE) as file:
            return file.read()

    @functools.cached_property
    def console(self) -> ConsoleMap:
        """The console's bytes and the position of each. Reads the whole log once."""
        from retrograde.recording.console import ConsoleMap

        if self.manifest.machine.keeps_ports():
            return self.ports["console"]
        return ConsoleMap.of(self.log(), self.console_bytes())

    @functools.cached_property
    def ports(self) -> dict[str, ConsoleMap]:
        """All that is kept of what the machine put out, by the port's name; the console's first.

        Others are "debugcon", "semihosting" and "serial1", the second serial port. Reads the
        whole log once.
        """
        from retrograde.recording.console import ConsoleMap
        from retrograde.recording.ports import read_runs

        names = self.manifest.machine.ports()
        if not self.manifest.machine.keeps_ports():
            return {names[0]: self.console}
        with self.open_own(PORTS) as file:
            runs = read_runs(file.read(), len(names), whole=self.complete)
        maps = ConsoleMap.of_ports(self.log(), runs, range(len(names)))
        return {name: maps[number] for number, name in enumerate(names)}

    def resolve(self, expression: str | int) -> int:
        """Turn a position expression into a position; raises PositionError."""
        names = self.manifest.machine.ports()
        others = {name: functools.partial(self._find_text, name) for name in names[1:]}
        find_console = functools.partial(self._find_text, "console")
        return parse_position(str(expression), self.end, find_console, others)

    def _find_text(self, port: str, text: str) -> int | None:
        shown = self.console if port == "console" else self.ports[port]
        wanted = os.fsencode(text)  # the bytes that were typed, also where they are no UTF-8
        found = next(shown.find(wanted), None)
        return found and shown.position_of(found[0] + len(wanted) - 1)

    def check_inputs(self) -> None:
        """Compare all inputs with their digests; raises InputChanged."""
        for recorded in self.manifest.inputs:
            with self.open_input(recorded) as file:
                self.check_input(recorded, file)

    def check_input(self, recorded: InputFile, file: BufferedReader) -> None:
        """Compare what is open as an input with its digest; raises InputChanged."""
        if digest_file(file, recorded.name).sha256 != recorded.sha256:
            raise InputChanged(
                f"The input {recorded.name} of {self.name} changed since it was recorded.",
                self._put_back(recorded),
            )

    def _put_back(self, recorded: InputFile) -> str:
        path = self.input_path(recorded.name)
        return f"Put the original back at {path}; its SHA-256 is {recorded.sha256}."

    def check_digests(self, names: Collection[FileName] | None = None) -> None:
        """Compare the recording's own files `names`, all if None, with the manifest.

        Raises RecordingError, for the log LogCorrupt that tells where it is damaged if
        that can be told. A recording that was never finished has nothing to compare.
        """
        for name in self.manifest.own_files() if names is None else names:
            with self.open_own(name) as file:
                self.check_own(name, file)

    def check_own(self, name: FileName, file: BufferedReader) -> FileDigest:
        """Compare what is open as `name` with the manifest, and return what it is.

        Raises as `check_digests`.
        """
        found = digest_file(file, name)
        recorded = self.manifest.files.get(name, found)
        if found == recorded:
            return found
        if name == LOG:
            self.log().summary()
        raise (LogCorrupt if name == LOG else RecordingError)(
            f"{name} of {self.name} is not what was recorded "
            f"({found.bytes} bytes, {recorded.bytes} recorded).",
            _DAMAGED,
        )

    def _check_files(self) -> None:
        for name in self.manifest.own_files():
            self.open_own(name).close()


class Draft:
    """A recording being made, in `NAME.partial` beside its final place."""

    def __init__(
        self, final: Path, folder: Path, held: Held | None = None, aside: Path | None = None
    ) -> None:
        self.final = final
        self.path = folder
        self.aside = aside
        """Where what a killed recorder had left under this name is now."""
        self._held = held
        self.inputs: list[InputFile] = []

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Draft:
        """Make the directory, which is ours as long as this object lives.

        Raises UsageError when the output is already there, or is being made.
        """
        final = Path(path).absolute()
        folder = final.with_name(final.name + PARTIAL)
        if final.exists() or final.is_symlink():
            raise UsageError(
                f"{final} is already there.", "Choose another name or remove it first."
            )
        try:
            held, aside = claim_folder(folder, may_move=True)
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be made: {error.strerror}.", "Choose a writable place."
            ) from error
        draft = cls(final, folder, held, aside)
        try:
            with disk_errors_named(folder):
                (folder / INPUTS).mkdir()
                with (folder / RESERVE).open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except BaseException:
            draft.discard()
            raise
        return draft

    def add_input(self, source: Path, *, copy: bool = False) -> InputFile:
        """Take in a file the machine starts with: copied when small, linked when large.

        Large ones are copied, too, when `copy` is set, sparsely and with shared blocks where
        that can be. Raises UsageError when it cannot be read, EnvironmentLacks when the disk
        is full.
        """
        name = input_name(source.name, {known.name for known in self.inputs})
        target = self.path / INPUTS / name
        try:
            with source.open("rb") as file:
                if copy and os.fstat(file.fileno()).st_size > COPY_LIMIT:
                    return self.add_made(name, functools.partial(_copy_into, file))
                digest = digest_file(file, name)
        except OSError as error:
            raise UsageError(
                f"{source} cannot be read: {error.strerror}.", "Check the QEMU arguments."
            ) from error
        entry = InputFile(name=name, sha256=digest.sha256, bytes=digest.bytes)
        if digest.bytes <= COPY_LIMIT:
            with disk_errors_named(self.path):
                shutil.copyfile(source, target)
        else:
            target.symlink_to(source.resolve())
        self.inputs.append(entry)
        return entry

    def add_made(self, name: str, write: Callable[[Path], None]) -> InputFile:
        """Take in a file that `write` makes, called `name` as far as possible.

        Raises what that raises, and EnvironmentLacks when the disk is full.
        """
        name = input_name(name, {known.name for known in self.inputs})
        target = self.path / INPUTS / name
        with disk_errors_named(self.path):
            write(target)
            with target.open("rb") as file:
                digest = digest_file(file, name)
        entry = InputFile(name=name, sha256=digest.sha256, bytes=digest.bytes)
        self.inputs.append(entry)
        return entry

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest so that a crash leaves the old one or the new one."""
        write_manifest(self.path, manifest)

    def finish(self, manifest: Manifest) -> Recording:
        """Write the final manifest, with the files' digests, and take the final name.

        Raises EnvironmentLacks when the disk does not let us; what is there then stays
        as an incomplete recording under its draft's name.
        """
        (self.path / RESERVE).unlink(missing_ok=True)
        files = digests(self.path, manifest.own_files())
        self.write_manifest(msgspec.structs.replace(manifest, files=files))
        with disk_errors_named(self.final):
            self.path.rename(self.final)
        return Recording.open(self.final)

    def discard(self) -> None:
        """Remove everything: for a machine that never started."""
        shutil.rmtree(self.path, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in `folder` so that a crash leaves the old one or the new one."""
    new = folder / (MANIFEST + ".new")
    with disk_errors_named(folder):
        try:
            with new.open("wb") as file:
                file.write(encode_manifest(manifest))
                file.flush()
                os.fsync(file.fileno())
            new.replace(folder / MANIFEST)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def disk_errors_named(place: Path) -> Iterator[None]:
    """Turn an OSError while writing into an EnvironmentLacks that names `place`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise EnvironmentLacks(
            f"{place} cannot be written: {error.strerror}.",
            "Free some space or choose another place." if full else "Choose a writable place.",
        ) from error


def digest_file(file: BufferedReader, name: str) -> FileDigest:
    """Return size and SHA-256 of what is open as `name`; it is logged when that takes long."""
    size = os.fstat(file.fileno()).st_size
    text = f"reading all {size:_} bytes of {name} for the digest ..."
    slow = threading.Timer(ANNOUNCED_SECONDS, _log.warning, [text])
    slow.daemon = True
    slow.start()
    try:
        digest = hashlib.file_digest(file, "sha256")
    finally:
        slow.cancel()
    return FileDigest(bytes=file.seek(0, os.SEEK_END), sha256=digest.hexdigest())


def _copy_into(source: BufferedReader, target: Path) -> None:
    with target.open("xb") as file:
        copy_sparse(source, file)


def digests(folder: Path, names: Collection[FileName]) -> dict[FileName, FileDigest]:
    """Return size and SHA-256 of each of the own files `names` of the recording in `folder`."""
    files: dict[FileName, FileDigest] = {}
    for name in names:
        with (folder / name).open("rb") as file:
            files[name] = digest_file(file, name)
    return files


def now() -> str:
    """Return the time as the manifest keeps it: UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
