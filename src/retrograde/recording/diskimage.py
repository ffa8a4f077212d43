"""The header of a disk image: its format, and which other files it would pull in.

A qcow2 image may name a backing file or an external data file, and QEMU opens what
it names. QEMU's own guess of a format is no help: a guest can write a qcow2 header
into its raw disk. Formats are therefore read here once, when recording, kept in the
manifest and always given to QEMU explicitly. Layout: QEMU docs/interop/qcow2.rst.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrograde.recording.folder import open_regular

ImageFormat = Literal["raw", "qcow2"]

_QCOW2_MAGIC = b"QFI\xfb"
# magic, version, backing file offset and length, cluster bits, virtual size in bytes
_QCOW2_HEADER = struct.Struct(">4sIQIIQ")
_FEATURES_AT = 72
_EXTERNAL_DATA_FILE = 1 << 2
_BACKING_NAME_LIMIT = 1023
_HEADER_LENGTH_AT = 100
_VERSION_2_LENGTH = 72
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_EXTENSIONS_LIMIT = 4096

# First bytes of formats QEMU would open but that are not supported here.
_FOREIGN_MAGIC = {
    b"QED\x00": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Di": "vmdk",
    b"vhdx": "vhdx",
    b"cone": "vpc",
    b"LUKS": "luks",
    b"<<< ": "vdi",
}


@dataclass(frozen=True)
class ImageHeader:
    """What a disk image says about itself.

    `size` is what the guest sees, in bytes. `backing` is the name of the backing
    file as written in the header and `backing_format` its format, "" when not told;
    `foreign` is the name of an unsupported format.
    """

    format: ImageFormat
    size: int
    backing: str = ""
    backing_format: str = ""
    external_data: bool = False
    foreign: str = ""


def read_header(path: Path) -> ImageHeader:
    """Read the header of the image at `path`; OSError when it cannot be read."""
    with open_regular(path, follow=True) as image:
        return header_in(image.fileno())


def header_in(fd: int) -> ImageHeader:
    """Read the header of the image open as `fd`, whose offset stays; OSError as by os.pread."""
    start, end = os.pread(fd, _EXTENSIONS_LIMIT, 0), os.fstat(fd).st_size
    if not start.startswith(_QCOW2_MAGIC) or len(start) < _VERSION_2_LENGTH:
        return ImageHeader("raw", end, foreign=_FOREIGN_MAGIC.get(start[:4], ""))
    _, version, backing_at, backing_length, _, size = _QCOW2_HEADER.unpack_from(start)
    backing = b""
    if backing_at:
        # Any 64-bit offset may stand there; one past the end reads as no name.
        backing = os.pread(fd, min(backing_length, _BACKING_NAME_LIMIT), min(backing_at, end))
    return ImageHeader(
        "qcow2",
        size,
        backing=os.fsdecode(backing),
        backing_format=_backing_format(start, version),
        external_data=version >= 3 and bool(_number(start, _FEATURES_AT, 8) & _EXTERNAL_DATA_FILE),
    )


def _backing_format(start: bytes, version: int) -> str:
    """Return what the header extension of that name says; "" without one."""
    at = _number(start, _HEADER_LENGTH_AT, 4) if version >= 3 else _VERSION_2_LENGTH
    while at + _EXTENSION.size <= len(start):
        kind, length = _EXTENSION.unpack_from(start, at)
        at += _EXTENSION.size
        if kind == _BACKING_FORMAT:
            return start[at : at + length].decode("ascii", "replace")
        if kind == 0:
            break
        at += (length + 7) & ~7
    return ""


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
