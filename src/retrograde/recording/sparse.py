"""Copies of large files that cost what is in them: shared blocks, or holes for zeros."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from typing import IO, BinaryIO

_CHUNK = 1 << 20
_BLOCK = 64 << 10
_FICLONE = 0x40049409  # ioctl_ficlone(2)
_ZEROS = bytes(_BLOCK)

# What file systems say that share no blocks, or not between these files.
_NOT_SHARED = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.EPERM)


def copy_sparse(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a file into an empty one, by sharing its blocks where the file system can.

    Raises OSError.
    """
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError as error:
        if error.errno not in _NOT_SHARED:
            raise
    else:
        return
    size = source.seek(0, os.SEEK_END)
    for start, stop in _data(source, size):
        target.seek(start)
        while start < stop and (
            data := os.pread(source.fileno(), min(_CHUNK, stop - start), start)
        ):
            write_sparse(target, data)
            start += len(data)
    target.truncate(size)


def write_sparse(target: IO[bytes], data: bytes) -> None:
    """Write `data`, blocks of zeros as holes. After the last the file is truncated to its size."""
    for at in range(0, len(data), _BLOCK):
        block = data[at : at + _BLOCK]
        if block == _ZEROS[: len(block)]:
            target.seek(len(block), os.SEEK_CUR)
        else:
            target.write(block)


def _data(source: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yield where there is data, as far as the file system knows."""
    stop = 0
    while stop < size:
        try:
            start = os.lseek(source.fileno(), stop, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but holes from here on
                raise
            return
        stop = os.lseek(source.fileno(), start, os.SEEK_HOLE)
        yield start, stop
