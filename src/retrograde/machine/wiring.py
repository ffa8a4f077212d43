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
from typing import BinaryIO, Self

from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import EnvironmentLacks
from retrograde.held import Scratch
from retrograde.machine.image import create_image
from retrograde.machine.ram import GuestRam
from retrograde.recording.diskimage import ImageFormat

SOCKET_NAME = 107
"""Bytes of a Unix socket's name, at most (unix(7))."""


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

    def lend(self, file: BinaryIO) -> int:
        """Let QEMU have a file that was opened for it; returns the descriptor, closed with us."""
        return self._own(os.dup(file.fileno()))

    def memory_file(self, name: str, content: BinaryIO) -> int:
        """Make a memory file with the bytes of `content`; returns its fd."""
        return _filled(self._own(os.memfd_create(name)), content)

    def memory_copy(self, content: BinaryIO, name: str) -> GuardedImage:
        """Make a memory file with the image `content`, called `name` in errors.

        The copy is what is checked, because nobody else can write it.
        """
        return GuardedImage(self.memory_file("image", content), "qcow2", name)

    def disk_copy(self, content: BinaryIO, name: str) -> GuardedImage:
        """Make an unlinked file on disk with the image `content`, as `memory_copy` does."""
        return GuardedImage(_filled(self._unlinked(), content), "qcow2", name)

    def layer(self, file: BinaryIO, form: ImageFormat, name: str) -> GuardedImage:
        """Let QEMU read an image of a disk, called `name` in errors, in place."""
        return GuardedImage(self.lend(file), form, name, based=True)

    def overlay(self, disk: GuardedImage, snapshot: str = "") -> GuardedImage:
        """Make an empty image of the size of `disk` for what the guest writes.

        On disk, not in memory: a guest may write a lot.
        """
        fd = self._unlinked()
        create_image(fd, disk.size, snapshot)
        return GuardedImage(fd, "qcow2", "an overlay")

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
        self._folder = Scratch()
        self.path = socket_in(self._folder.path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(1)

    def release(self) -> None:
        """Close our copy of the socket, once QEMU has it: its death must be seen.

        As long as anybody holds it, connecting works and waits for an answer.
        """
        self._socket.close()

    @property
    def fd(self) -> int:
        """The listening socket, for QEMU to inherit."""
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._socket.close()
        self._folder.close()


def _filled(fd: int, content: BinaryIO) -> int:
    """Copy `content` into the empty file `fd`, and return that."""
    with os.fdopen(fd, "wb", closefd=False) as target:
        shutil.copyfileobj(content, target, 1 << 20)
    return fd


def socket_in(folder: Path) -> Path:
    """Return the name for gdb's socket in `folder`, a temporary one.

    Raises EnvironmentLacks when it is longer than the kernel takes.
    """
    path = folder / "gdb"
    if len(os.fsencode(path)) > SOCKET_NAME:
        raise EnvironmentLacks(
            f"{folder.parent} is too long a path for gdb's socket to be in.",
            "Set TMPDIR to a shorter one: TMPDIR=/tmp.",
        )
    return path


def fd_path(fd: int) -> str:
    """Return the name under which QEMU opens an inherited descriptor."""
    return f"/dev/fd/{fd}"
