"""What several ports of a recording machine write, kept in the order they wrote it.

QEMU's log counts bytes and does not say which port wrote them, so the order must be kept
beside it (`recording.ports`). QEMU writes into one datagram socket for each port, all of
them connected to one of ours: the kernel keeps datagrams in the order they were sent, and says
who sent each.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from retrograde.held import Scratch
from retrograde.recording.bundle import CONSOLE, PORTS
from retrograde.recording.ports import encode_runs

_LARGEST = 1 << 20
"""Bytes of one datagram, at most: what QEMU writes at once.

By semihosting that is a whole string. A socket takes what its buffer may hold, twice of what
was asked for (socket(7)), and that is 416 KiB where net.core.wmem_max is as Linux has it.
"""

_TYPED = 4096
"""Bytes taken at once of what is typed."""

_AT_ONCE = 4096
"""Datagrams taken between two writes to the files."""


class Switchboard:
    """Keeps what the ports `names` write, the console's first, in the draft `folder`.

    `ends` are QEMU's ends by name, to be closed once it has them. The console's bytes also
    go to `console`, a stream socket, and what comes from there is typed at the machine.
    `copies` are descriptors that get another port's output, by its name. `close` when QEMU
    has ended.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        console: socket.socket | None = None,
        copies: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._console = console
        self._copies = [list((copies or {}).get(name, ())) for name in names]
        self._failure: OSError | None = None
        self._ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ends: dict[str, socket.socket] = {}
        # A socket's name must be short, and a descriptor's is.
        self._folder = Scratch()
        self._place = os.open(self._folder.path, os.O_PATH | os.O_DIRECTORY)
        place = f"/proc/self/fd/{self._place}"
        self._ours.bind(f"{place}/ours")
        for name in names:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.ends[name] = end
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST // 2)
            end.bind(f"{place}/{name}")
            end.connect(f"{place}/ours")
        self._numbers = {end.getsockname(): n for n, end in enumerate(self.ends.values())}
        self._taken = bytearray(_LARGEST)
        self._files = [_open(folder / name) for name in (PORTS, CONSOLE)]
        self._wake, self._waker = os.pipe()
        self._keeper = threading.Thread(target=self._keep_all)
        self._typist = threading.Thread(target=self._type)
        self._keeper.start()
        self._typist.start()

    def release(self) -> None:
        """Close our copies of QEMU's ends, once it runs."""
        for end in self.ends.values():
            end.close()

    def close(self) -> None:
        """Keep what is left and end. Raises OSError where a file could not be written."""
        self.release()
        os.close(self._waker)
        self._keeper.join()
        if self._console:
            with contextlib.suppress(OSError):  # the other end is closed
                self._console.shutdown(socket.SHUT_RDWR)
        self._typist.join()
        self._ours.close()
        self._folder.close()
        for fd in (*self._files, self._place, self._wake):
            os.close(fd)
        if self._failure:
            raise self._failure

    def _keep_all(self) -> None:
        """Keep what comes until `close` is called and nothing is left."""
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        poll.register(self._wake, select.POLLHUP)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            runs = list(self._received())
            self._keep(runs)
            if self._wake in ready and not runs:
                return

    def _received(self) -> Iterator[tuple[int, bytes]]:
        for _ in range(_AT_ONCE):
            try:
                size, sender = self._ours.recvfrom_into(self._taken, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if sender in self._numbers:
                yield self._numbers[sender], bytes(self._taken[:size])

    def _keep(self, runs: Sequence[tuple[int, bytes]]) -> None:
        console = b"".join(data for port, data in runs if port == 0)
        try:
            for file, data in zip(self._files, (encode_runs(runs), console), strict=True):
                _write(file, data)
        except OSError as error:  # the guest must not notice
            self._failure = self._failure or error
        with contextlib.suppress(OSError):  # nobody reads any more
            if self._console:
                self._console.sendall(console)
        for port, data in runs:
            for copy in self._copies[port]:
                with contextlib.suppress(OSError):
                    _write(copy, data)

    def _type(self) -> None:
        """Pass on what is typed, a byte at a time: QEMU drops what it has no room for."""
        machine = next(iter(self._numbers))
        with contextlib.suppress(OSError):  # QEMU ended
            while self._console and (data := self._console.recv(_TYPED)):
                for byte in data:
                    self._ours.sendto(bytes([byte]), machine)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
