"""The files of a store of checkpoints: which there are, what is in them, and that it is so."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import IMAGE, LOG, Recording
from retrograde.recording.folder import Folder
from retrograde.recording.rrlog import MAX_POSITION
from retrograde.recording.sealed import Damaged, Kept, checksum_of
from retrograde.timeline.pages import PAGE, Table

FORMAT = 4
"""Raise it also when checkpoints made before may be wrong."""
INDEX = "index.json"
PAGES = "pages.bin"
SUMS = "sums.bin"
TABLES = "tables.bin"
FOLDER = "checkpoints"

INDEX_LIMIT: Final = 64 << 20
"""Bytes of an index.json; a checkpoint takes one to twenty thousand."""

FILES: Final = re.compile(
    r"(index(\.copy)?\.json(\.\w+\.new)?|(pages|sums|tables)\.bin|(machine|disk\d+)\.qcow2|reserve)"
)
"""Names of files in a store. There are no others."""

BY_PARTS: Final = {PAGES, SUMS, TABLES}
"""Files that are not used as a whole: their parts have checksums, or are some."""


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

    `sizes` are the bytes of the other files, by name, `sums` the checksums of those that are
    used as a whole, `table_sums` that of each checkpoint's page table. Checkpoints at the
    positions in `distrusted` are not used; `proven` is set when the others were tried (see
    proof), `damaged` when something else than its checksum says was met.
    """

    origin: Origin
    checkpoints: list[Checkpoint] = []
    sizes: dict[str, int] = {}
    sums: dict[str, int] = {}
    table_sums: list[int] = []
    distrusted: list[int] = []
    proven: bool = False
    damaged: bool = False


def origin_of(recording: Recording, qemu: Qemu) -> Origin:
    """Return what a store for `recording` under `qemu` is made from."""
    log = recording.manifest.files.get(LOG)
    return Origin(FORMAT, log.sha256 if log else "", qemu.digest, recording.manifest.ram.seen)


class SavedImages:
    """The images of a store, open until the last user is gone: what was checked is used.

    They stay when another process puts a new store in the place of this one.
    """

    def __init__(self, folder: Folder, sums: Mapping[str, int]) -> None:
        """Open and check those of `folder` with these checksums; raises OSError and Damaged."""
        self._place = str(folder)
        self._fds: dict[str, int] = {}
        for name, expected in sums.items():
            with folder.open(name) as file:
                if checksum_of(file) != expected:
                    raise Damaged(name)
                self._fds[name] = os.dup(file.fileno())

    def __del__(self) -> None:
        for fd in self._fds.values():
            os.close(fd)

    def __str__(self) -> str:
        return self._place

    def open(self, name: str) -> BufferedReader:
        """Open an image for reading; raises FileNotFoundError where there is none."""
        if name not in self._fds:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        # Anew, because copies of a descriptor share the place in the file.
        return Path(f"/proc/self/fd/{self._fds[name]}").open("rb")


def is_ours(name: str) -> bool:
    """Whether a store has files of this name."""
    return bool(FILES.fullmatch(name))


def index_in(folder: Folder) -> Kept[Index]:
    """Return the document index.json of a store."""
    return Kept(folder, INDEX, Index, INDEX_LIMIT)


def read_sums(folder: Folder) -> NDArray[np.uint32]:
    """Return the pages' checksums; a damaged one makes its page a damaged one."""
    with folder.open(SUMS) as file:
        return np.frombuffer(file.read(), np.uint32)


def read_tables(folder: Folder, index: Index) -> list[Table]:
    """Return the page tables, in place; ValueError where there are not so many."""
    count = len(index.checkpoints)
    if not count:
        return []
    if not index.origin.ram_bytes:
        return [np.zeros(0, np.uint32)] * count
    with folder.open(TABLES) as file:
        shape = (count, index.origin.ram_bytes // PAGE)
        return list(np.memmap(file, dtype=np.uint32, mode="r", shape=shape))


def check_sizes(folder: Folder, index: Index) -> None:
    """See that the files are those of `index`; raises OSError, and Damaged where they are not."""
    names = index.sizes.keys()
    complete = names >= {IMAGE, *BY_PARTS} and names - BY_PARTS == index.sums.keys()
    each_has_one = len(index.table_sums) == len(index.checkpoints)
    rise = all(a.position < b.position for a, b in pairwise(index.checkpoints))
    if not complete or not each_has_one or not rise or not all(map(is_ours, names)):
        raise Damaged(INDEX)
    for name, size in index.sizes.items():
        with folder.open(name) as file:
            if os.fstat(file.fileno()).st_size != size:
                raise Damaged(name)
