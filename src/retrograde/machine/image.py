"""qcow2 images: the one snapshots live in, and overlays over the guest's disks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from retrograde.errors import EnvironmentLacks, QemuRefused

CREATE_SECONDS = 30.0

VMSTATE_BYTES = 1 << 20
"""Virtual size of the snapshot image; vmstate is stored beyond it (docs/interop/qcow2.txt)."""


def create_image(path: str, backing: Path | None = None, backing_format: str = "raw") -> None:
    """Make an empty qcow2 image at `path`, or an overlay over `backing`.

    Raises EnvironmentLacks without qemu-img, QemuRefused when it does not agree.
    """
    words = ["create", "-q", "-f", "qcow2"]
    if backing is not None:
        _qemu_img(*words, "-b", str(backing.absolute()), "-F", backing_format, path)
    else:
        _qemu_img(*words, path, str(VMSTATE_BYTES))


def mark_snapshot(path: str, tag: str) -> None:
    """Give an image an empty snapshot `tag`, so that `loadvm tag` accepts the disk."""
    _qemu_img("snapshot", "-q", "-c", tag, path)


def _qemu_img(*words: str) -> None:
    try:
        answer = subprocess.run(
            ["qemu-img", *words], capture_output=True, text=True, timeout=CREATE_SECONDS
        )
    except FileNotFoundError as error:
        raise EnvironmentLacks(
            "qemu-img is not installed.",
            "Install it: apt-get install --no-install-recommends qemu-utils",
        ) from error
    if answer.returncode != 0:
        raise QemuRefused(f"qemu-img {words[0]} failed.", detail=answer.stderr)
