"""Disk images in memory, good ones and some that lead elsewhere."""

from __future__ import annotations

import os
import struct

from retrograde.commandline.guardedimage import GuardedImage

SIZE = 1 << 20
EXTERNAL_DATA_FILE = 1 << 2


def qcow2_header(*, backing: bytes = b"", incompatible: int = 0, version: int = 3) -> bytes:
    """Return the start of a qcow2 image of SIZE bytes (QEMU docs/interop/qcow2.rst)."""
    at = 200 if backing else 0
    start = struct.pack(">4sIQIIQ", b"QFI\xfb", version, at, len(backing), 16, SIZE)
    features = struct.pack(">Q", incompatible).ljust(28, b"\0") + struct.pack(">I", 104)
    return (start.ljust(72, b"\0") + features).ljust(200, b"\0") + backing


def memory_file(content: bytes) -> int:
    """Return the descriptor of a file, open until the process ends."""
    fd = os.memfd_create("image")
    os.write(fd, content)
    return fd


def raw_image() -> GuardedImage:
    return GuardedImage(memory_file(bytes(SIZE)), "raw", "an image")


def qcow2_image() -> GuardedImage:
    return GuardedImage(memory_file(qcow2_header()), "qcow2", "an image")
