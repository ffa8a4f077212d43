"""A stranger's images may not make QEMU open other files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.errors import RecordingError
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording

pytestmark = pytest.mark.qemu

INCOMPATIBLE_FEATURES = 72  # docs/interop/qcow2.rst
EXTERNAL_DATA_FILE = 1 << 2


async def test_an_image_with_an_external_data_file_is_refused(
    copied: Callable[..., Path], qemu: Qemu
) -> None:
    hostile = copied()
    with (hostile / "machine.qcow2").open("r+b") as image:
        image.seek(INCOMPATIBLE_FEATURES)
        image.write(struct.pack(">Q", EXTERNAL_DATA_FILE))
    with pytest.raises(RecordingError, match="keeps its data in another file"):
        await Replayer.start(Recording.open(hostile), qemu)
