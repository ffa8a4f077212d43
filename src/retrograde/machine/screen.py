"""The guest's screen: what a monitor at its display device would show at a position.

QEMU draws it from the device's state and memory, which a replay has as they were (screendump,
ui/ui-qmp-cmds.c). The cursor of a text mode is drawn by a clock of QEMU's own: whether it is
seen says nothing about the guest (docs/quirks.md).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import QemuRefused, UsageError
from retrograde.machine.memorymap import Human

_AT_MOST: Final = 256 << 20
"""Bytes of a picture: 8K displays have 100 MB."""

_PPM: Final = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")

_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """Pixels of a screen: `pixels` has the shape (height, width, 3), red, green and blue."""

    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    def png(self) -> bytes:
        """Return the picture as a PNG file (W3C, Portable Network Graphics, third edition)."""
        # Eight bits of red, green and blue, rows that are filtered by nothing, all at once.
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        filters = np.zeros((self.height, 1), np.uint8)
        rows = np.hstack((filters, self.pixels.reshape(self.height, self.width * 3)))
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
        return _PNG + b"".join(_chunk(kind, data) for kind, data in parts)


async def take_picture(human: Human) -> Picture:
    """Return what is on the screen of a parked machine.

    Raises UsageError where it has none, QemuRefused for what is no picture, or too large.
    """
    # Displays of devices come first; of a machine without one QEMU would show a text console
    # of its own (ui/console.c).
    device = await human("qom-get /backend/console[0] device")
    if not device.startswith('"/'):
        raise UsageError(
            "This machine has no screen.", "Record it with a display device, as -device VGA."
        )
    with os.fdopen(os.memfd_create("screen"), "rb") as file:
        said = await human(f"screendump /proc/{os.getpid()}/fd/{file.fileno()}")
        if said:
            raise QemuRefused("QEMU cannot show the screen.", detail=said)
        if os.fstat(file.fileno()).st_size > _AT_MOST:
            raise QemuRefused("The screen has more pixels than can be shown.")
        return _picture_of(file.read())


def _picture_of(ppm: bytes) -> Picture:
    """Return the picture in a binary PPM file (netpbm, ppm(5))."""
    header = _PPM.match(ppm)
    if not header:
        raise QemuRefused("QEMU's picture of the screen is not in the format it should be.")
    width, height = map(int, header.groups())
    if len(ppm) != header.end() + 3 * width * height:
        raise QemuRefused("QEMU's picture of the screen is not whole.")
    return Picture(np.frombuffer(ppm, np.uint8, offset=header.end()).reshape(height, width, 3))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
