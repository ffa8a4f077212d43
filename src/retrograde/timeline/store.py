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
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import IMAGE, LOG, Recording
from retrograde.timeline.pages import PageStore, Table

FORMAT = 1
INDEX = "index.json"
PAGES = "pages.bin"
TABLES = "tables.bin"
FOLDER = "checkpoints"


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
    """index.json."""

    origin: Origin
    checkpoints: list[Checkpoint] = []
    proven: bool = False


def origin_of(recording: Recording, qemu: Qemu) -> Origin:
    """Return what a store for `recording` under `qemu` is made from."""
    log = recording.manifest.files.get(LOG)
    return Origin(FORMAT, log.sha256 if log else "", qemu.digest, recording.manifest.ram.bytes)


class CheckpointStore:
    """The checkpoints of one recording, in a directory."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self.pages = PageStore(folder / PAGES, index.origin.ram_bytes)
        self._tables: list[Table] = self._read_tables()
        self._positions = [checkpoint.position for checkpoint in index.checkpoints]

    @classmethod
    def open(cls, cache: Path, origin: Origin) -> CheckpointStore | None:
        """Open the store in `cache`; None when there is none that fits `origin`."""
        folder = cache / FOLDER
        try:
            index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
            if index.origin != origin or not (folder / IMAGE).is_file():
                return None
            return cls(folder, index)
        except (OSError, msgspec.DecodeError, ValueError):
            return None

    @classmethod
    def create(cls, cache: Path, origin: Origin) -> CheckpointStore:
        """Make an empty store under a temporary name; `publish` gives it its own."""
        cache.mkdir(parents=True, exist_ok=True)
        return cls(Path(tempfile.mkdtemp(dir=cache, prefix=FOLDER + ".")), Index(origin))

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """All checkpoints by position."""
        return self.index.checkpoints

    @property
    def image(self) -> Path:
        """The qcow2 image with their device states."""
        return self.folder / IMAGE

    @property
    def bytes(self) -> int:
        """Bytes on disk, without the image while the pass that fills it runs."""
        image = self.image.stat().st_size if self.image.exists() else 0
        return self.pages.size + sum(table.nbytes for table in self._tables) + image

    def add(self, checkpoint: Checkpoint, table: Table) -> None:
        """Append a checkpoint; positions must rise."""
        with (self.folder / TABLES).open("ab") as file:
            file.write(table.tobytes())
        self.index.checkpoints.append(checkpoint)
        self._tables.append(table)
        self._positions.append(checkpoint.position)

    def table(self, checkpoint: Checkpoint) -> Table:
        """Return the page table of a checkpoint."""
        return self._tables[self._positions.index(checkpoint.position)]

    def before(self, position: int) -> Checkpoint | None:
        """Return the last checkpoint at or before `position`."""
        at = bisect.bisect_right(self._positions, position)
        return self.index.checkpoints[at - 1] if at else None

    def write_index(self) -> None:
        """Write index.json, atomically."""
        new = self.folder / (INDEX + ".new")
        new.write_bytes(msgspec.json.encode(self.index))
        new.replace(self.folder / INDEX)

    def publish(self) -> None:
        """Give the finished store its name, unless another process was first."""
        self.write_index()
        final = self.folder.with_name(FOLDER)
        stale = self.open(final.parent, self.index.origin) is None
        if stale:
            shutil.rmtree(final, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else's store is in place: ours goes
            self.folder.rename(final)
            self.folder = final

    def discard(self) -> None:
        """Remove a store that was not published."""
        self.close()
        if self.folder.name != FOLDER:
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
