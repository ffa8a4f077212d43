"""Fresh qcow2 images: the one snapshots live in, and what guests write on their disks."""

from __future__ import annotations

import errno
import os
import shutil

from retrograde.asking import ask
from retrograde.errors import EnvironmentLacks, QemuRefused

CREATE_SECONDS = 30.0

NO_SPACE = os.strerror(errno.ENOSPC)
"""What QEMU's programs say of a full disk."""

VMSTATE_BYTES = 1 << 20
"""Virtual size of a snapshot image; vmstate lies beyond it (QEMU docs/interop/qcow2.rst)."""


def create_image(fd: int, size: int = VMSTATE_BYTES, snapshot: str = "") -> None:
    """Make the file `fd` an empty qcow2 image of `size` bytes.

    `snapshot` names an empty snapshot to put in it, because `loadvm` wants its snapshot
    on every disk. Raises EnvironmentLacks without qemu-img, QemuRefused when it fails,
    QemuDied when it is killed.
    """
    path = f"/dev/fd/{fd}"
    _qemu_img(fd, "create", "-q", "-f", "qcow2", path, str(size))
    if snapshot:
        _qemu_img(fd, "snapshot", "-q", "-c", snapshot, path)


def drop_snapshot(fd: int, snapshot: str) -> None:
    """Remove a snapshot, if it is there, from the qcow2 image in `fd`, which no QEMU has open.

    Raises as `create_image`.
    """
    path = f"/dev/fd/{fd}"
    if f" {snapshot} " in _qemu_img(fd, "snapshot", "-l", path):
        _qemu_img(fd, "snapshot", "-q", "-d", snapshot, path)


def _qemu_img(fd: int, *words: str) -> str:
    if shutil.which("qemu-img") is None:
        raise EnvironmentLacks(
            "qemu-img is not installed.",
            "Install it: apt-get install --no-install-recommends qemu-utils",
        )
    doing = f"doing {words[0]}"
    answer = ask(["qemu-img", *words], doing, seconds=CREATE_SECONDS, pass_fds=(fd,))
    if NO_SPACE in answer.stderr:
        raise EnvironmentLacks(
            f"qemu-img {words[0]} found no space left on the disk.",
            "Free some space or choose another place.",
            answer.stderr,
        )
    if answer.returncode != 0:
        raise QemuRefused(f"qemu-img {words[0]} failed.", detail=answer.stderr)
    return answer.stdout
