"""A folder of the host as a disk, as QEMU's `fat:` shows it to a guest, in an image of its own.

QEMU makes such a disk up while it runs, out of files that may be others by then. A recording has
an image, made once by mtools from what is in the folder, with a digest like any other input.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from retrograde.asking import ask
from retrograde.errors import EnvironmentLacks, UsageError

_MIB = 1 << 20
_SMALLEST, _SMALLEST_32 = 32 * _MIB, 64 * _MIB
_LARGEST_16 = 1024 * _MIB
_FLOPPY = 1440 << 10
_CLUSTER = 32 << 10
_FREE = 8 * _MIB
"""Bytes for the guest's own files."""

_SECTOR = 512
_START = 2048
"""The partition's first sector."""

_FAT16, _FAT32 = 0x0E, 0x0C
_SECONDS = 300.0
_OPTIONS = re.compile(r"fat:((?:floppy:|rw:|12:|16:|32:)*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class FatFolder:
    """What `fat:OPTIONS:FOLDER` asks for: a disk with one partition, or a floppy disk."""

    folder: Path
    floppy: bool = False
    bits_32: bool = False

    @classmethod
    def parse(cls, name: str) -> FatFolder | None:
        """Return what the name of an image asks for, None where it begins otherwise."""
        match = _OPTIONS.fullmatch(name)
        if not match:
            return None
        options = match[1].split(":")
        return cls(Path(match[2]).absolute(), "floppy" in options, "32" in options)

    def write_image(self, image: Path) -> None:
        """Write the image.

        Raises EnvironmentLacks without mtools or when they cannot, UsageError for what is no
        file of a disk.
        """
        size = self._size()
        with image.open("wb") as file:
            file.truncate(size)
            if not self.floppy:
                file.write(_partition_table(size, _FAT32 if self._is_32(size) else _FAT16))
        place = str(image) if self.floppy else f"{image}@@{_START * _SECTOR}"
        sectors = size // _SECTOR - (0 if self.floppy else _START)
        shape = ["-f", "1440"] if self.floppy else ["-T", str(sectors)]
        shape += ["-F"] if self._is_32(size) else []
        # The same folder gives the same image: mformat's own serial number is the time.
        _mtools("mformat", "-i", place, *shape, "-N", "20261128", "-v", "QEMU VVFAT", "::")
        if names := sorted(str(path) for path in self.folder.iterdir()):
            _mtools("mcopy", "-i", place, "-s", "-m", "-Q", *names, "::")

    def _is_32(self, size: int) -> bool:
        return not self.floppy and (self.bits_32 or size > _LARGEST_16)

    def _size(self) -> int:
        used = _FREE
        for place, folders, names in os.walk(self.folder):
            used += _CLUSTER
            for name in (*folders, *names):
                used += -(-_bytes_of(Path(place) / name) // _CLUSTER) * _CLUSTER
        if self.floppy:
            return _FLOPPY
        used += used // 16  # the tables
        return max(_SMALLEST_32 if self.bits_32 else _SMALLEST, -(-used // _MIB) * _MIB)


def _bytes_of(path: Path) -> int:
    """Return the size of a file, 0 for a folder. Raises UsageError for anything else."""
    with contextlib.suppress(OSError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        if stat.S_ISDIR(status.st_mode) and not path.is_symlink():
            return 0
    raise UsageError(
        f"{path} is neither a file nor a folder.",
        "Take it out of the folder that is to be a disk; a link may lead to a file.",
    )


def _partition_table(size: int, kind: int) -> bytes:
    """Return the first sector of a disk of `size` bytes with one active partition of `kind`."""
    far = b"\xfe\xff\xff"  # beyond what cylinders, heads and sectors can say
    sectors = size // _SECTOR - _START
    numbers = _START.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    entry = b"\x80" + far + bytes([kind]) + far + numbers
    return (bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa"


def _mtools(*words: str) -> None:
    if not shutil.which(words[0]):
        raise EnvironmentLacks(
            f"A disk made of a folder (fat:) needs {words[0]}, which is not installed.",
            "Install it: apt-get install mtools",
        )
    plain = ["env", "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1", "SOURCE_DATE_EPOCH=315532800"]
    answer = ask([*plain, *words], "making a disk of a folder", seconds=_SECONDS)
    if answer.returncode != 0:
        raise EnvironmentLacks(
            "mtools could not make a disk of the folder.",
            "Their words follow; make the image yourself and name it in place of fat:.",
            answer.stderr,
        )
