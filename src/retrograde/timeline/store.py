"""Checkpoints on disk: `cache/checkpoints/`, made once, trusted only for their recording.

::

    index.json     what it was made from, and the checkpoints' positions and registers; twice
    pages.bin      contents of RAM pages, see pages
    sums.bin       the checksum of each page, uint32 each
    tables.bin     one page table a checkpoint, uint32 each
    machine.qcow2  QEMU's device state of every checkpoint, as internal snapshots

The directory is written under a temporary name and renamed when whole. A store made
from another recording, by another QEMU or another format is removed and made anew. So is
one that is not made of plain files of these names: it may come from a stranger, and what
else it holds is neither read nor removed.

All is checked against its checksum when it is used first: the images on opening, a page
table and its pages with the first use of their checkpoint. A checkpoint that is damaged is
used no more, and the next opening makes the store anew, at the same positions.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterable, Sequence
from typing import Final

from retrograde.errors import InternalError, RecordingError
from retrograde.recording.bundle import IMAGE, Recording
from retrograde.recording.folder import Folder
from retrograde.recording.sealed import Damaged, checksum, checksum_of, is_damage
from retrograde.timeline.pages import PAGE, ZERO, PageStore, RamImage, Table
from retrograde.timeline.storefiles import (
    BY_PARTS,
    FOLDER,
    PAGES,
    SUMS,
    TABLES,
    Checkpoint,
    Index,
    Origin,
    SavedImages,
    check_sizes,
    index_in,
    is_ours,
    read_sums,
    read_tables,
)

_TEMPORARY: Final = re.compile(FOLDER + r"\.\w{8}")

RESERVE = "reserve"
RESERVE_BYTES = 48 << 20
"""Kept free while the pages are written: a full disk then ends the saving, and the images
of device states and the index still fit."""

_log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one recording.

    Made by `open`, by `create`, which the caller fills and publishes, or by `nowhere`.
    """

    def __init__(
        self,
        index: Index,
        pages: PageStore,
        tables: Iterable[Table] = (),
        *,
        folder: Folder | None = None,
        images: SavedImages | None = None,
    ) -> None:
        self.index = index
        self.pages = pages
        self.images = images
        """With the snapshots of all checkpoints; None: the recording's own have to do."""
        self.places: Sequence[int] = ()
        """Positions at which checkpoints were in the damaged store that this one replaces."""
        self._folder = folder
        self._cache: Folder | None = None
        self._tables = dict(zip(index.checkpoints, tables, strict=True))
        positions = (one.position for one in index.checkpoints)
        self._unseen = dict(zip(positions, index.table_sums, strict=True))
        self._trusted = [c for c in index.checkpoints if c.position not in index.distrusted]

    @classmethod
    def open(cls, recording: Recording, origin: Origin) -> CheckpointStore | None:
        """Open the store of `recording`; None when there is none that fits `origin`.

        Raises OSError where a limit or a permission is in the way.
        """
        try:
            return cls._open(recording.open_cache(), origin)
        except FileNotFoundError:
            return None
        except (OSError, Damaged) as error:
            if not is_damage(error):
                raise
            _log.warning(
                "The checkpoints in %s are damaged, or of another version: they are made anew.",
                recording.cache,
            )
            return None

    @classmethod
    def _open(cls, cache: Folder, origin: Origin) -> CheckpointStore | None:
        """Open the store in `cache`; raises OSError and Damaged where it cannot be used."""
        folder = cache.folder(FOLDER)
        index = index_in(folder).read()
        if index.origin != origin or index.damaged:
            return None
        try:
            return cls._of(folder, index)
        except (ValueError, FileNotFoundError) as error:
            raise Damaged(str(error)) from error

    @classmethod
    def _of(cls, folder: Folder, index: Index) -> CheckpointStore:
        """Open the store with this index; raises OSError, ValueError and Damaged."""
        check_sizes(folder, index)
        page_sums = read_sums(folder)
        tables = read_tables(folder, index)
        images = SavedImages(folder, index.sums)
        with folder.open(PAGES) as file:
            pages = PageStore(file, index.origin.ram_bytes, page_sums)
        store = cls(index, pages, tables, folder=folder, images=images)
        if len(page_sums) * PAGE != index.sizes[PAGES] or not pages.are_whole(ZERO):
            store.close()
            raise Damaged(PAGES)
        return store

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
                store = cls.fresh(folder, origin)
                fcntl.flock(store.pages.fd, fcntl.LOCK_EX)
                with folder.create(RESERVE) as file:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
            except BaseException:
                cache.remove(folder.path.name, is_ours)
                raise
        store._cache = cache
        with contextlib.suppress(OSError, Damaged):
            replaced = index_in(cache.folder(FOLDER)).read()
            if replaced.origin == origin:
                store.places = [one.position for one in replaced.checkpoints]
        return store

    @classmethod
    def fresh(cls, folder: Folder, origin: Origin) -> CheckpointStore:
        """Make an empty store in an empty folder."""
        with folder.create(PAGES) as file:
            pages = PageStore(file, origin.ram_bytes)
        folder.create(TABLES).close()
        return cls(Index(origin), pages, folder=folder)

    @classmethod
    def nowhere(cls, origin: Origin) -> CheckpointStore:
        """Return a store without checkpoints, for where none can be kept."""
        with os.fdopen(os.memfd_create("pages"), "w+b") as file:
            return cls(Index(origin), PageStore(file, origin.ram_bytes))

    @property
    def folder(self) -> Folder:
        """Where it is."""
        if self._folder is None:
            raise InternalError("These checkpoints are nowhere.")
        return self._folder

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
        if checkpoint in self._trusted:  # no other user of the store was first
            self.index.distrusted.append(checkpoint.position)
            self._trusted.remove(checkpoint)

    def table(self, checkpoint: Checkpoint) -> Table:
        """Return the page table of a checkpoint."""
        return self._tables[checkpoint]

    def before(self, position: int) -> Checkpoint | None:
        """Return the last checkpoint at or before `position` that is whole."""
        at = bisect.bisect_right(self._trusted, position, key=lambda c: c.position)
        while at:
            checkpoint = self._trusted[at - 1]
            if self._is_whole(checkpoint):
                return checkpoint
            self.drop(checkpoint)
            at -= 1
        return None

    def is_whole(self) -> bool:
        """Look at all there is; whether nothing was damaged. What is, is used no more."""
        for checkpoint in list(self._trusted):
            self.before(checkpoint.position)
        return not self.index.damaged

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint's table and pages are what was stored; looked at once."""
        expected = self._unseen.pop(checkpoint.position, None)
        if expected is None:
            return True
        table = self._tables[checkpoint]
        return checksum(table.data) == expected and self.pages.are_whole(table)

    def drop(self, checkpoint: Checkpoint) -> None:
        """Use a damaged checkpoint no more; the next opening makes all anew."""
        if checkpoint in self._trusted:
            self._trusted.remove(checkpoint)
        self._note_damage()

    def drop_all(self) -> None:
        """Use no checkpoint and no image of a damaged store any more."""
        self._trusted.clear()
        self.images = None
        self._note_damage()

    def _note_damage(self) -> None:
        if self.index.damaged:
            return
        self.index.damaged = True
        _log.warning(
            "Checkpoints in %s are damaged: they are not used, and made anew the next time.",
            self.folder,
        )
        with contextlib.suppress(OSError, RecordingError):
            self.write_index()

    def ram_of(self, checkpoint: Checkpoint) -> RamImage:
        """Return the RAM of a checkpoint."""
        return RamImage(self.pages, self.table(checkpoint))

    def ram_at(self, position: int) -> RamImage | None:
        """Return the RAM of the checkpoint at `position`; None where there is none."""
        last = self.before(position)
        return self.ram_of(last) if last and last.position == position else None

    def write_index(self) -> None:
        """Write index.json, atomically, where there is one."""
        if self._folder:
            index_in(self._folder).write(self.index)

    def publish(self) -> CheckpointStore:
        """Give the finished store its name and return the store that has it.

        That is another's where another process was first; this one is then removed.
        """
        cache, origin, temporary = self._cache, self.index.origin, self.folder.path.name
        if cache is None:
            raise InternalError(f"The checkpoints in {self.folder} have their name already.")
        with cache.locked():
            with self.folder.create(SUMS) as file:
                file.write(self.pages.sums.tobytes())
            self.close()
            self._sum_up()
            published = self._published(cache, origin)
            if published is None:
                cache.remove(FOLDER, is_ours)
                cache.rename(temporary, FOLDER)
                published = self._published(cache, origin)
            cache.remove(temporary, is_ours)
        if published is None:
            raise InternalError(f"The checkpoints in {cache} cannot be opened again.")
        return published

    @classmethod
    def _published(cls, cache: Folder, origin: Origin) -> CheckpointStore | None:
        """Open the store that has the name; None where it cannot be used and is to go."""
        try:
            return cls._open(cache, origin)
        except FileNotFoundError:
            return None
        except (OSError, Damaged) as error:
            if not is_damage(error):
                raise
            return None

    def _sum_up(self) -> None:
        """Write into index.json what all files must be."""
        index, names = self.index, self.folder.names()
        index.sizes = {name: self.folder.stat(name).st_size for name in names}
        for name in set(names) - BY_PARTS:
            with self.folder.open(name) as file:
                index.sums[name] = checksum_of(file)
        index.table_sums = [checksum(self._tables[one].data) for one in index.checkpoints]
        self.write_index()

    def discard(self) -> None:
        """Remove a store that was not published."""
        self.close()
        if self._cache is not None:
            with contextlib.suppress(OSError, RecordingError):
                self._cache.remove(self.folder.path.name, is_ours)

    def close(self) -> None:
        """Close its files."""
        self.pages.close()


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
