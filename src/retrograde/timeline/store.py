"""Checkpoints on disk: `cache/checkpoints/`, made once, trusted only for their recording.

::

    index.json     what it was made from, and the checkpoints' positions and registers
    pages.bin      contents of RAM pages, see pages
    tables.bin     one page table a checkpoint, uint32 each
    machine.qcow2  QEMU's device state of every checkpoint, as internal snapshots

The directory is written under a temporary name and renamed when whole. A store made
from another recording, by another QEMU or another format is removed and made anew. So is
one that is not made of plain files of these names: it may come from a stranger, and what
else it holds is neither read nor removed.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec
import numpy as np

from retrograde.errors import InternalError, RecordingError
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import IMAGE, LOG, Recording
from retrograde.recording.folder import Folder
from retrograde.recording.rrlog import MAX_POSITION
from retrograde.timeline.pages import PageStore, RamImage, Table

FORMAT = 3
"""Raise it also when checkpoints made before may be wrong."""
INDEX = "index.json"
PAGES = "pages.bin"
TABLES = "tables.bin"
FOLDER = "checkpoints"

INDEX_LIMIT: Final = 64 << 20
"""Bytes of an index.json; a checkpoint takes one to twenty thousand."""

FILES: Final = re.compile(
    r"(index\.json(\.\w+\.new)?|(pages|tables)\.bin|(machine|disk\d+)\.qcow2|reserve)"
)
"""Names of files in a store. There are no others."""

_TEMPORARY: Final = re.compile(FOLDER + r"\.\w{8}")

RESERVE = "reserve"
RESERVE_BYTES = 48 << 20
"""Kept free while the pages are written: a full disk then ends the saving, and the images
of device states and the index still fit."""


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A saved machine state: its position, and what the machine must look like there.

    `registers` is the gdbstub's `g` packet in hex, `seconds` what the replay from the
    checkpoint before to this one took.
    """

    position: Annotated[int, msgspec.Meta(ge=0, le=MAX_POSITION)]
    registers: str
    seconds: Annotated[float, msgspec.Meta(ge=0)]

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

    def __init__(self, folder: Folder, index: Index, *, writable: bool = False) -> None:
        self.folder = folder
        self.index = index
        with folder.create(PAGES) if writable else folder.open(PAGES) as pages:
            self.pages = PageStore(pages, index.origin.ram_bytes, writable=writable)
        if writable:
            folder.create(TABLES).close()
        self._cache: Folder | None = None
        self._tables = dict(zip(index.checkpoints, self._read_tables(), strict=True))
        self._trusted = [c for c in index.checkpoints if c.position not in index.distrusted]

    @classmethod
    def open(cls, recording: Recording, origin: Origin) -> CheckpointStore | None:
        """Open the store of `recording`; None when there is none that fits `origin`."""
        try:
            return cls._open(recording.open_cache(), origin)
        except OSError:
            return None

    @classmethod
    def _open(cls, cache: Folder, origin: Origin) -> CheckpointStore | None:
        try:
            folder = cache.folder(FOLDER)
            index = msgspec.json.decode(folder.read(INDEX, INDEX_LIMIT), type=Index)
            if index.origin != origin or not {IMAGE, PAGES, TABLES} <= index.sizes.keys():
                return None
            if any(a.position >= b.position for a, b in pairwise(index.checkpoints)):
                return None
            if any(_size(folder, name) != size for name, size in index.sizes.items()):
                return None
            return cls(folder, index)
        except (OSError, msgspec.DecodeError, ValueError):
            return None

    @classmethod
    def create(cls, recording: Recording, origin: Origin) -> CheckpointStore:
        """Make an empty store under a temporary name; `publish` gives it its own.

        Raises RecordingError where something that is not ours is in the way, else OSError.
        """
        cache = recording.open_cache(make=True)
        with cache.locked():
            # Now, and not after a replay: what `publish` could not replace.
            cache.require_ours(FOLDER, is_ours)
            _sweep(cache)
            folder = cache.make_temporary(FOLDER + ".")
            try:
                store = cls(folder, Index(origin), writable=True)
                fcntl.flock(store.pages.fd, fcntl.LOCK_EX)
                with folder.create(RESERVE) as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            except BaseException:
                cache.remove(folder.path.name, is_ours)
                raise
        store._cache = cache
        return store

    def use_reserve(self) -> None:
        """Give back the disk space kept for what has to be written at the end."""
        self.folder.unlink(RESERVE)

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """All trusted checkpoints by position."""
        return self._trusted

    @property
    def bytes(self) -> int:
        """Bytes on disk, without the image while the pass that fills it runs."""
        image = self.folder.stat(IMAGE).st_size if IMAGE in self.folder.names() else 0
        return self.pages.size + sum(table.nbytes for table in self._tables.values()) + image

    def add(self, checkpoint: Checkpoint, table: Table) -> None:
        """Append a checkpoint; positions must rise."""
        with self.folder.append(TABLES) as file:
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
        self.folder.replace(INDEX, msgspec.json.encode(self.index))

    def publish(self) -> CheckpointStore:
        """Give the finished store its name and return the store that has it.

        That is another's where another process was first; this one is then removed.
        """
        cache, origin, temporary = self._cache, self.index.origin, self.folder.path.name
        if cache is None:
            raise InternalError(f"The checkpoints in {self.folder} have their name already.")
        with cache.locked():
            self.close()
            others = [name for name in self.folder.names() if name != INDEX]
            self.index.sizes = {name: self.folder.stat(name).st_size for name in others}
            self.write_index()
            published = self._open(cache, origin)
            if published is None:
                cache.remove(FOLDER, is_ours)
                cache.rename(temporary, FOLDER)
                published = self._open(cache, origin)
            cache.remove(temporary, is_ours)
        if published is None:
            raise InternalError(f"The checkpoints in {cache} cannot be opened again.")
        return published

    def discard(self) -> None:
        """Remove a store that was not published."""
        self.close()
        if self._cache is not None:
            with contextlib.suppress(OSError, RecordingError):
                self._cache.remove(self.folder.path.name, is_ours)

    def close(self) -> None:
        """Close its files."""
        self.pages.close()

    def _read_tables(self) -> list[Table]:
        count = len(self.index.checkpoints)
        if not count:
            return []
        pages = self.index.origin.ram_bytes // 4096
        with self.folder.open(TABLES) as file:
            return list(np.memmap(file, dtype=np.uint32, mode="r", shape=(count, pages)))


def is_ours(name: str) -> bool:
    """Whether a store has files of this name."""
    return bool(FILES.fullmatch(name))


def _size(folder: Folder, name: str) -> int:
    """Return the bytes of a plain file of ours; ValueError for another name."""
    if not is_ours(name):
        raise ValueError(name)
    with folder.open(name) as file:
        return os.fstat(file.fileno()).st_size


def _sweep(cache: Folder) -> None:
    """Remove what processes that died left under temporary names."""
    for name in filter(_TEMPORARY.fullmatch, cache.names()):
        with contextlib.suppress(OSError, RecordingError):
            try:
                with cache.folder(name).open(PAGES) as pages:
                    fcntl.flock(pages, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # it is being filled
            except OSError:
                pass
            cache.remove(name, is_ours)
