"""Writes cpio archives in the "newc" format, which Linux unpacks as its initrd.

The same entries give the same bytes: no clock, no user, no inode of this host gets in.
Format: Documentation/driver-api/early-userspace/buffer-format.rst in the Linux source.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or device node of an archive."""

    #: path below the root, without a leading slash
    name: str
    #: type and permission bits as in st_mode
    mode: int
    #: contents of a regular file, empty for everything else
    data: bytes = b""
    #: major and minor number of a device node
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """Return a directory anyone may enter and root may write."""
    return Entry(name, stat.S_IFDIR | 0o755)


def program(name: str, data: bytes) -> Entry:
    """Return an executable file holding `data`."""
    return Entry(name, stat.S_IFREG | 0o755, data)


def character_device(name: str, major: int, minor: int) -> Entry:
    """Return a character device node for root alone."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of `entries`, in their order: directories before what is in them."""
    members = [_member(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join(members) + _member(0, Entry(_TRAILER, 0))


def _member(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file system (2), device
    # of the node (2), length of the name with its NUL, checksum (always 0 in newc)
    numbers = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
