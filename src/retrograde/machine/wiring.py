"""What one QEMU inherits from us: sockets and memory files, all without names.

Every file a replay writes (its copy of the snapshot image, disk overlays, console,
guest RAM) is a memory file that QEMU opens as /dev/fd/N, so a crash of anybody leaves
nothing on disk, and QEMU never writes into the recording.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Self

from retrograde.machine.ram import GuestRam


class Wiring:
    """The descriptors of one QEMU: ours, and theirs in `pass_fds`."""

    def __init__(self, ram_bytes: int | None) -> None:
        self._owned: list[int] = []
        self._sockets: list[socket.socket] = []
        self.pass_fds: list[int] = []
        self.ram = GuestRam(ram_bytes) if ram_bytes else None
        if self.ram:
            self.pass_fds.append(self.ram.fd)
        self.monitor_link, self.monitor_fd = self._pair()
        self.gdb_link, self.gdb_fd = self._pair()

    def memory_file(self, name: str, content: Path | None = None) -> int:
        """Make a memory file QEMU inherits, optionally a copy of a file; returns its fd."""
        fd = os.memfd_create(name)
        self._owned.append(fd)
        self.pass_fds.append(fd)
        if content is not None:
            with content.open("rb") as source, os.fdopen(fd, "wb", closefd=False) as target:
                shutil.copyfileobj(source, target, 1 << 20)
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

    def _pair(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._sockets.append(ours)
        fd = theirs.detach()
        self.pass_fds.append(fd)
        return ours, fd


def fd_path(fd: int) -> str:
    """Return the name under which QEMU opens an inherited descriptor."""
    return f"/dev/fd/{fd}"


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
