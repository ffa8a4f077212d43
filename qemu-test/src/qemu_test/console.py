"""A guest's console as a socket that a test may read, or leave unread for ever.

QEMU waits for whoever reads a recorded serial port, so a test that does not read would stop
the guest once the socket's buffer is full. Here a thread takes what the guest prints as it
comes, keeps it in a file, and hands it on as fast as the test reads. The test's end is an
ordinary socket: `recv`, `makefile`, `fileno` and `select` do what they do for QEMU's own.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import BinaryIO

_CHUNK = 1 << 16


class ConsolePump:
    """Carries bytes between QEMU's console and a test.

    `socket` is the test's end; it reads end-of-file when QEMU closed the console and all
    was read. Everything the guest printed goes to `transcript`, whatever the test reads.
    """

    def __init__(self, qemu: socket.socket, transcript: BinaryIO) -> None:
        """Take over `qemu`, our end of the console, and `transcript`, an empty file."""
        self.socket, self._test = socket.socketpair()
        self._qemu = qemu
        self._transcript = transcript
        self._printed = 0
        self._handed = 0
        self._typed = bytearray()
        self._qemu_open = self._test_open = True
        for end in (self._qemu, self._test):
            end.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take what is left of the console and end; call it when QEMU has ended."""
        for end in (self.socket, self._qemu):
            # Also ends what `makefile` made of the socket. What was sent can still be read.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.socket.close()
        self._transcript.close()

    def _run(self) -> None:
        with self._qemu, self._test:
            while self._qemu_open or (self._test_open and self._handed < self._printed):
                self._carry()

    def _carry(self) -> None:
        """Wait until something can be carried, and carry it."""
        readers = [*([self._qemu] * self._qemu_open), *([self._test] * self._test_open)]
        writers = []
        if self._test_open and self._handed < self._printed:
            writers.append(self._test)
        if self._qemu_open and self._typed:
            writers.append(self._qemu)
        readable, writable, _ = select.select(readers, writers, [])
        if self._qemu in readable:
            self._take_printed()
        if self._test in readable:
            self._take_typed()
        if self._test in writable:
            self._hand_printed()
        if self._qemu in writable:
            self._hand_typed()

    def _take_printed(self) -> None:
        data = _receive(self._qemu)
        self._qemu_open = bool(data)
        self._transcript.write(data)
        self._printed += len(data)

    def _take_typed(self) -> None:
        data = _receive(self._test)
        self._test_open = bool(data)
        self._typed += data

    def _hand_printed(self) -> None:
        # Not from memory: a guest may print gigabytes that nobody reads.
        chunk = os.pread(self._transcript.fileno(), _CHUNK, self._handed)
        self._handed += _send(self._test, chunk)

    def _hand_typed(self) -> None:
        del self._typed[: _send(self._qemu, self._typed)]


def _receive(end: socket.socket) -> bytes:
    """Return what can be received; b"" when the other side is gone."""
    try:
        return end.recv(_CHUNK)
    except OSError:  # reset: it went with something of ours unread
        return b""


def _send(end: socket.socket, data: bytes | bytearray) -> int:
    """Send what fits and return how much; a side that is gone shows when reading from it."""
    try:
        return end.send(data)
    except OSError:
        return 0
