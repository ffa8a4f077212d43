"""Checkpoints on disk: `cache/checkpoints/`, made once, trusted only for their recording.

::

    index.json     what it was made from, and the checkpoints' positions and registers
    pages.bin      contents of RAM pages, see pages
    tables.bin     one page table a checkpoint, uint32 each
    machine.qcow2  QEMU's device state of every checkpoint, as internal snapshots

The directory is written under a temporary name and renamed when whole. A store made
from another recording, by another QEMU or another format is removed and made anew.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from retrograde.errors import InternalError
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import IMAGE, LOG, Recording
from retrograde.timeline.pages import PageStore, RamImage, Table

FORMAT = 3
"""Raise it also when checkpoints made before may be wrong."""
INDEX = "index.json"
PAGES = "pages.bin"
TABLES = "tables.bin"
FOLDER = "checkpoints"

RESERVE = "reserve"
RESERVE_BYTES = 48 << 20
"""Kept free while the pages are written: a full disk then ends the saving, and the images
of device states and the index still fit."""


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A saved machine state: its position, and what the machine must look like there.

    `registers` is the gdbstub's `g` packet in hex, `seconds` what the replay from the
    checkpoint before to this one took.
    """

    position: int
    registers: str
    seconds: float

    @property
    def tag(self) -> str:
        """Name of its snapshot in machine.qcow2."""
        return f"cp{self.position}"


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a store was made from; it serves nothing else."""

    format: int
    log_sha256: str
    qemu_sha256: str
    ram_bytes: int


class Index(msgspec.Struct, forbid_unknown_fields=True):
    """index.json.

    `sizes` are the bytes of the other files, by name. Checkpoints at the positions in
    `distrusted` are not used; `proven` is set when the others were tried (see proof).
    """

    origin: Origin
    checkpoints: list[Checkpoint] = []
    sizes: dict[str, int] = {}
    distrusted: list[int] = []
    proven: bool = False


def origin_of(recording: Recording, qemu: Qemu) -> Origin:
    """Return what a store for `recording` under `qemu` is made from."""
    log = recording.manifest.files.get(LOG)
    return Origin(FORMAT, log.sha256 if log else "", qemu.digest, recording.manifest.ram.bytes)


class CheckpointStore:
    """The checkpoints of one recording, in a directory."""

    def __init__(self, folder: Path, index: Index, *, writable: bool = False) -> None:
        self.folder = folder
        self.index = index
        self.pages = PageStore(folder / PAGES, index.origin.ram_bytes, writable=writable)
        self._tables = dict(zip(index.checkpoints, self._read_tables(), strict=True))
        self._trusted = [c for c in index.checkpoints if c.position not in index.distrusted]

    @classmethod
    def open(cls, cache: Path, origin: Origin) -> CheckpointStore | None:
        """Open the store in `cache`; None when there is none that fits `origin`."""
        folder = cache / FOLDER
        try:
            index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
            sizes = {name: (folder / name).stat().st_size for name in index.sizes}
            if (
                index.origin != origin
                or sizes != index.sizes
                or not {IMAGE, PAGES, TABLES} <= sizes.keys()
            ):
                return None
            return cls(folder, index)
        except (OSError, msgspec.DecodeError, ValueError):
            return None

    @classmethod
    def create(cls, cache: Path, origin: Origin) -> CheckpointStore:
        """Make an empty store under a temporary name; `publish` gives it its own."""
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache):
            _sweep(cache)
            folder = Path(tempfile.mkdtemp(dir=cache, prefix=FOLDER + "."))
            store = cls(folder, Index(origin), writable=True)
            fcntl.flock(store.pages.fd, fcntl.LOCK_EX)
            (folder / TABLES).touch()
            with (folder / RESERVE).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        return store

    def use_reserve(self) -> None:
        """Give back the disk space kept for what has to be written at the end."""
        (self.folder / RESERVE).unlink()

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """All trusted checkpoints by position."""
        return self._trusted

    @property
    def image(self) -> Path:
        """The qcow2 image with their device states."""
        return self.folder / IMAGE

    @property
    def bytes(self) -> int:
        """Bytes on disk, without the image while the pass that fills it runs."""
        image = self.image.stat().st_size if self.image.exists() else 0
        return self.pages.size + sum(table.nbytes for table in self._tables.values()) + image

    def add(self, checkpoint: Checkpoint, table: Table) -> None:
        """Append a checkpoint; positions must rise."""
        with (self.folder / TABLES).open("ab") as file:
            file.write(table.tobytes())
        self.index.checkpoints.append(checkpoint)
        self._tables[checkpoint] = table
        self._trusted.append(checkpoint)

    def distrust(self, checkpoint: Checkpoint) -> None:
        """Use a checkpoint no more; index.json has to be written to make that last."""
        self.index.distrusted.append(checkpoint.position)
        self._trusted.remove(checkpoint)

    def table(self, checkpoint: Checkpoint) -> Table:
        """Return the page table of a checkpoint."""
        return self._tables[checkpoint]

    def before(self, position: int) -> Checkpoint | None:
        """Return the last checkpoint at or before `position`."""
        at = bisect.bisect_right(self._trusted, position, key=lambda c: c.position)
        return self._trusted[at - 1] if at else None

    def ram_of(self, checkpoint: Checkpoint) -> RamImage:
        """Return the RAM of a checkpoint."""
        return RamImage(self.pages, self.table(checkpoint))

    def ram_at(self, position: int) -> RamImage | None:
        """Return the RAM of the checkpoint at `position`; None where there is none."""
        last = self.before(position)
        return self.ram_of(last) if last and last.position == position else None

    def write_index(self) -> None:
        """Write index.json, atomically."""
        new = self.folder / (INDEX + ".new")
        new.write_bytes(msgspec.json.encode(self.index))
        new.replace(self.folder / INDEX)

    def publish(self) -> CheckpointStore:
        """Give the finished store its name and return the store that has it.

        That is another's where another process was first; this one is then removed.
        """
        cache, origin = self.folder.parent, self.index.origin
        with _lock(cache):
            self.close()
            others = [path for path in self.folder.iterdir() if path.name != INDEX]
            self.index.sizes = {path.name: path.stat().st_size for path in others}
            self.write_index()
            published = self.open(cache, origin)
            if published is None:
                shutil.rmtree(cache / FOLDER, ignore_errors=True)
                self.folder.rename(cache / FOLDER)
                published = self.open(cache, origin)
            shutil.rmtree(self.folder, ignore_errors=True)
        if published is None:
            raise InternalError(f"The checkpoints in {cache} cannot be opened again.")
        return published

    def discard(self) -> None:
        """Remove a store that was not published."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close its files."""
        self.pages.close()

    def _read_tables(self) -> list[Table]:
        path = self.folder / TABLES
        count = len(self.index.checkpoints)
        if not count:
            return []
        pages = self.index.origin.ram_bytes // 4096
        tables = np.memmap(path, dtype=np.uint32, mode="r", shape=(count, pages))
        return list(tables)


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Keep other processes from making and publishing stores in `cache`."""
    fd = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sweep(cache: Path) -> None:
    """Remove what processes that died left under temporary names."""
    for folder in cache.glob(FOLDER + ".*"):
        try:
            with (folder / PAGES).open("rb") as pages:
                fcntl.flock(pages, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # it is being filled
        except OSError:
            pass
        shutil.rmtree(folder, ignore_errors=True)
