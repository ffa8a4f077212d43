"""What one QEMU inherits from us: sockets, and files without names.

Every file a replay writes (its copy of the snapshot image, disk overlays, guest RAM) is
a memory file or an unlinked one that QEMU opens as /dev/fd/N. A crash of anybody leaves
nothing on disk, and QEMU never writes into a finished recording.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Self

from retrograde.machine.image import create_image
from retrograde.machine.ram import GuestRam
from retrograde.recording.diskimage import read_header


class Wiring:
    """The descriptors of one QEMU: ours, and theirs in `pass_fds`."""

    def __init__(self, ram_bytes: int | None) -> None:
        """Make the sockets, and guest RAM of `ram_bytes` unless None."""
        self._owned: list[int] = []
        self._sockets: list[socket.socket] = []
        self.pass_fds: list[int] = []
        self.ram = GuestRam(ram_bytes) if ram_bytes else None
        if self.ram:
            self.pass_fds.append(self.ram.fd)
        self.monitor_link, self.monitor_fd = self._pair()
        self.gdb_link, self.gdb_fd = self._pair()

    def inherit(self, fd: int) -> int:
        """Let QEMU have a descriptor that stays somebody else's; returns it."""
        self.pass_fds.append(fd)
        return fd

    def memory_copy(self, name: str, content: Path) -> int:
        """Make a memory file with the bytes of `content`; returns its fd."""
        fd = self._own(os.memfd_create(name))
        with content.open("rb") as source, os.fdopen(fd, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return fd

    def disk_copy(self, content: Path) -> int:
        """Make an unlinked file on disk with the bytes of `content`; returns its fd."""
        fd = self._unlinked()
        with content.open("rb") as source, os.fdopen(fd, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return fd

    def overlay(self, disk: Path, snapshot: str = "") -> int:
        """Make an empty image of the size of `disk` for what the guest writes; its fd.

        On disk, not in memory: a guest may write a lot.
        """
        fd = self._unlinked()
        create_image(fd, read_header(disk).size, snapshot)
        return fd

    def release_theirs(self) -> None:
        """Close our copies of QEMU's socket ends, once it runs: its death must be seen."""
        for fd in (self.monitor_fd, self.gdb_fd):
            if fd >= 0:
                os.close(fd)
        self.monitor_fd = self.gdb_fd = -1

    def close(self) -> None:
        """Close everything that is still ours. Safe to repeat."""
        self.release_theirs()
        for link in self._sockets:
            link.close()
        for fd in self._owned:
            os.close(fd)
        self._owned.clear()
        if self.ram:
            self.ram.close()

    def _unlinked(self) -> int:
        return self._own(os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR, 0o600))

    def _own(self, fd: int) -> int:
        self._owned.append(fd)
        return self.inherit(fd)

    def _pair(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._sockets.append(ours)
        return ours, self.inherit(theirs.detach())


class GdbListener:
    """A Unix socket that stock gdb connects to and QEMU answers on.

    A context manager; the socket's name goes when it is left.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="retrograde-")
        self.path = Path(self._folder.name) / "gdb"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(1)

    @property
    def fd(self) -> int:
        """The listening socket, for QEMU to inherit."""
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()
        self._folder.cleanup()


def fd_path(fd: int) -> str:
    """Return the name under which QEMU opens an inherited descriptor."""
    return f"/dev/fd/{fd}"
