"""The two connections a QEMU gets: its monitor and its console.

QEMU inherits its end of a socket pair, so that there is no name that others could use or
that stays behind.
"""

from __future__ import annotations

import socket
from typing import IO, BinaryIO, cast

from .console import ConsolePump

Address = str | tuple[str, int]


class MonitorLink:
    """The monitor: an inherited socket, or with `address`, a path or (host, port), that one."""

    def __init__(self, address: Address | None) -> None:
        self._address = address
        self._theirs: socket.socket | None = None
        self._server: socket.socket | None = None
        self._ours: socket.socket | None = None
        if address is None:
            self._theirs, self._ours = _pair()
        else:
            self._server = _listen(address)

    @property
    def chardev(self) -> str:
        """What QEMU's -chardev is told."""
        if self._theirs is not None:
            return f"socket,id=mon,fd={self._theirs.fileno()}"
        if isinstance(self._address, tuple):
            return f"socket,id=mon,host={self._address[0]},port={self._address[1]}"
        return f"socket,id=mon,path={self._address}"

    def connected(self, seconds: float) -> socket.socket:
        """Return our end, once QEMU has its own; TimeoutError after `seconds`."""
        self.release()
        if self._server is not None:
            self._server.settimeout(seconds)
            self._ours, _ = self._server.accept()
        assert self._ours is not None
        return self._ours

    def release(self) -> None:
        """Close QEMU's end, which it has inherited."""
        if self._theirs is not None:
            self._theirs.close()

    def close(self) -> None:
        """Close all."""
        for end in (self._theirs, self._server, self._ours):
            if end is not None:
                end.close()


class ConsoleLink:
    """The console: an inherited socket, read all the time (ConsolePump)."""

    def __init__(self, transcript: BinaryIO) -> None:
        self._theirs, ours = _pair()
        self._pump = ConsolePump(ours, transcript)
        self._file: IO[bytes] | None = None

    @property
    def chardev(self) -> str:
        """What QEMU's -chardev is told."""
        return f"socket,id=console,fd={self._theirs.fileno()}"

    @property
    def end(self) -> socket.socket:
        """The test's end."""
        return self._pump.socket

    @property
    def file(self) -> IO[bytes]:
        """The test's end as an unbuffered file, always the same one."""
        if self._file is None:
            self._file = cast(IO[bytes], self.end.makefile("rb", buffering=0))
        return self._file

    def release(self) -> None:
        """Close QEMU's end, which it has inherited."""
        self._theirs.close()

    def close(self) -> None:
        """Take what is left and close all; QEMU must have ended."""
        self.release()
        if self._file is not None:
            self._file.close()
        self._pump.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair: one to be inherited, and ours."""
    theirs, ours = socket.socketpair()
    theirs.set_inheritable(True)
    return theirs, ours


def _listen(address: Address) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_server(address)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(1)
    return server
