"""What an ELF file says of itself: pieces of its code, its build id, whether it has symbols.

The file may be a damaged one, or made to harm: what it says is checked against its size. gABI,
"Object Files".

gdbserver/gdbsymbols.py has it, too, in gdb's own Python (3.7 and later): nothing of ours is
imported here.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_LOAD, _NOTE, _EXECUTABLE = 1, 4, 1
_CONTENT, _SYMTAB = 1, 2
_INSTRUCTIONS = 4
_MOVABLE = 3
_BUILD_ID = 3
_PAGE = 4096
_SAMPLE = 32
_PIECE = 64
_PIECES = 256
_WINDOW = 1 << 16
"""Linux maps 64 KiB of a file around what a program touches, if it has them in memory."""


class Damaged(Exception):
    """It is no ELF file, or one that ends before what it says it holds."""


class _Span(NamedTuple):
    """A segment, or a section: its kind, flags, linked address, and place in the file."""

    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class Elf:
    """An ELF file. Raises Damaged, and OSError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise Damaged from None  # it is empty
        try:
            self._read()
        except (struct.error, IndexError):
            raise Damaged from None

    def _read(self) -> None:
        if (
            self._data[:4] != b"\x7fELF"
            or self._data[4] not in (1, 2)
            or self._data[5] not in (1, 2)
        ):
            raise Damaged
        self.order = "<" if self._data[5] == 1 else ">"
        wide = self._data[4] == 2
        head = self._unpack("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH", 16)
        kind, self.machine, _, self.entry, segments_at, sections_at, _, _ = head[:8]
        segment_size, segment_count, section_size, section_count, _ = head[8:]
        self.is_movable = kind == _MOVABLE
        self._segments = []
        for number in range(segment_count):
            at = segments_at + number * segment_size
            if wide:
                kind, flags, offset, address, _, size, _, _ = self._unpack("IIQQQQQQ", at)
            else:
                kind, offset, address, _, size, _, flags, _ = self._unpack("IIIIIIII", at)
            self._segments.append(_Span(kind, flags, address, offset, size, 0))
        self._sections = []
        for number in range(section_count):
            at = sections_at + number * section_size
            fields = self._unpack("IIQQQQIIQQ" if wide else "IIIIIIIIII", at)
            self._sections.append(_Span(fields[1], *fields[2:7]))

    def _unpack(self, layout: str, at: int) -> tuple[Any, ...]:
        layout = self.order + layout
        return struct.unpack(layout, self._data[at : at + struct.calcsize(layout)])

    def _bytes(self, span: _Span) -> bytes:
        return self._data[span.offset : span.offset + span.size]

    @property
    def has_symbols(self) -> bool:
        """Whether there is a symbol table."""
        return any(one.kind == _SYMTAB for one in self._sections)

    @property
    def is_kernel(self) -> bool:
        """Whether there is a symbol that begins the code of Linux."""
        tables = (one for one in self._sections if one.kind == _SYMTAB)
        linked = (self._sections[one.link] for one in tables if one.link < len(self._sections))
        return any(b"\0_stext\0" in self._bytes(one) for one in linked)

    @property
    def note(self) -> bytes:
        """The note with the build id, as it is in memory; empty where there is none."""
        return self._note()[1]

    @property
    def build_id(self) -> str:
        """The build id in hexadecimal digits; empty where there is none."""
        return self.note[16:].hex()

    def _note(self) -> tuple[int, bytes]:
        for segment in self._segments:
            at, content = 0, self._bytes(segment) if segment.kind == _NOTE else b""
            while at + 12 <= len(content):
                owner, size, kind = struct.unpack(self.order + "III", content[at : at + 12])
                stop = at + 12 + -(-owner // 4) * 4 + size
                if kind == _BUILD_ID and content[at + 12 : at + 16] == b"GNU\0":
                    return segment.address + at, content[at:stop]
                at = -(-stop // 4) * 4
        return 0, b""

    def sample(self) -> bytes:
        """Return some of the code, from its middle, that tells the program from others."""
        code = [one for one in self._sections if one.kind == _CONTENT and one.flags & _INSTRUCTIONS]
        most = max(code, key=lambda one: one.size, default=None)
        if most is None:
            return b""
        middle = most.offset + most.size // 2 // 16 * 16
        return self._data[middle : min(middle + _SAMPLE, most.offset + most.size)]

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield pieces of the program and the addresses where they were linked.

        The build id first and what runs first, then some of all its code.
        """
        address, note = self._note()
        if note:
            yield address, note
        code = [one for one in self._segments if one.kind == _LOAD and one.flags & _EXECUTABLE]
        if self._sections and not any(
            one.kind == _CONTENT and one.flags & _INSTRUCTIONS for one in self._sections
        ):
            return  # it has only what describes the code of another file
        places = [(self.entry, one) for one in code]
        size = sum(one.size for one in code)
        stride = _PAGE if size <= _PIECES * _PAGE else max(_WINDOW, size // _PIECES & -_PAGE)
        for one in code:
            room = max(0, _PIECES - len(places))
            steps = range(one.address & -_PAGE, one.address + one.size, stride)[:room]
            places += [(max(at, one.address), one) for at in steps]
        for at, one in places:
            start = one.offset + at - one.address
            stop = min(start + _PIECE, one.offset + one.size, start - at % _PAGE + _PAGE)
            if one.address <= at < one.address + one.size:
                yield at, self._data[start:stop]
