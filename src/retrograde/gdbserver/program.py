"""The guest's own program, for a client that came without one.

A debugger asks what the machine runs (qXfer:exec-file) and reads that file, and no other,
through us (vFile, GDB manual, "Host I/O Packets"): symbols are there although the client
may be on another machine or may not read the recording.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from retrograde.gdbserver.requests import E_READ_ONLY, Refusal, hexadecimal
from retrograde.recording.folder import open_regular

CHUNK: Final = 1 << 16
"""The most bytes in one answer, where each may need an escape."""

_STAT: Final = struct.Struct(">7I3Q3I")
"""`struct stat` of the protocol (GDB manual, "struct stat")."""

_FD: Final = 3
"""The only file there is to open has always the same number."""


class ProgramFile:
    """Answers what a client asks of the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.name = os.fsencode(path.resolve())
        self._path = path
        self._file: BinaryIO | None = None

    def answer(self, request: bytes) -> bytes:
        """Return the answer to what follows `vFile:`, empty when that is not known."""
        operation, _, rest = request.partition(b":")
        try:
            if operation == b"setfs":
                return b"F0"
            if operation == b"open":
                return self._open(rest)
            if operation == b"pread":
                return self._read(rest)
            if operation == b"fstat":
                return self._stat(rest)
            if operation == b"close":
                self._opened(rest)
                self.close()
                return b"F0"
        except (Refusal, OSError) as error:
            number = error.number if isinstance(error, Refusal) else error.errno or errno.EIO
            return b"F-1,%x" % number
        return b""

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, rest: bytes) -> bytes:
        name, _, how = rest.partition(b",")
        flags = hexadecimal(how.partition(b",")[0])
        if flags != os.O_RDONLY:
            raise Refusal(E_READ_ONLY, "The recording is read-only.")
        if name.lower() != self.name.hex().encode():
            raise Refusal(errno.ENOENT, "Only the program is served.")
        self.close()
        self._file = open_regular(self._path, follow=True)
        return b"F%x" % _FD

    def _read(self, rest: bytes) -> bytes:
        number, _, span = rest.partition(b",")
        count, _, offset = span.partition(b",")
        size = min(hexadecimal(count), CHUNK)
        data = os.pread(self._opened(number), size, min(hexadecimal(offset), (1 << 63) - 1))
        return b"F%x;%s" % (len(data), data)

    def _stat(self, rest: bytes) -> bytes:
        found = os.fstat(self._opened(rest))
        kind, links = found.st_mode & 0o170777, 1
        times = (int(found.st_mtime) & 0xFFFFFFFF,) * 3
        fields = (0, 0, kind, links, 0, 0, 0, found.st_size, found.st_blksize, found.st_blocks)
        return b"F%x;%s" % (_STAT.size, _STAT.pack(*fields, *times))

    def _opened(self, number: bytes) -> int:
        if self._file is None or hexadecimal(number) != _FD:
            raise Refusal(errno.EBADF, "There is no such open file.")
        return self._file.fileno()
