"""Fuzz target: headers of disk images, and the door through which they go to QEMU."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import RecordingError
from retrograde.recording.diskimage import header_in
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target
from tests.machine.images import EXTERNAL_DATA_FILE, qcow2_header

_BACKING_FORMAT = b"\xe2\x79\x2a\xca\0\0\0\x05qcow2\0\0\0" + bytes(8)

MOST = 512

SEEDS = (
    qcow2_header(),
    qcow2_header(version=2),
    qcow2_header(incompatible=EXTERNAL_DATA_FILE),
    qcow2_header(backing=b"base.raw"),
    qcow2_header(backing=b"/etc/passwd", version=2),
    qcow2_header(backing=b"json:{}")[:104] + _BACKING_FORMAT,
    *(b"QFI\xfb", b"KDMV" + bytes(90), b""),
)


def open_target(place: Path) -> Callable[[bytes], None]:
    fd = os.memfd_create("image")

    def one_input(data: bytes) -> None:
        os.ftruncate(fd, len(data))
        os.pwrite(fd, data, 0)
        header = header_in(fd)
        assert len(header.backing) <= 1023
        for based in (False, True):
            try:
                image = GuardedImage(fd, "qcow2", "an image", based=based)
            except RecordingError:
                continue
            assert data[:4] == b"QFI\xfb"
            version, name_at, length = (
                int.from_bytes(data[a:b], "big") for a, b in ((4, 8), (8, 16), (16, 20))
            )
            assert version < 3 or not data[79:80] or not data[79] & 4
            assert based or not name_at or not data[name_at : name_at + length]
            assert image.size == int.from_bytes(data[24:32], "big")
        assert GuardedImage(fd, "raw", "an image").size == len(data)

    return one_input
