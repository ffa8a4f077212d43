"""The one door for disk images: what QEMU gets has been looked at, by the descriptor it gets.

A qcow2 header may name an external data file, which QEMU opens for reading and writing and
no option overrules (QEMU block/qcow2.c), and a backing file, which options do overrule, but
not in every program. So nothing takes the path of an image: the command line is made of
`GuardedImage`s, and making one is checking it. The format is ours, never a guess of QEMU's.
"""

from __future__ import annotations

import os

from retrograde.errors import RecordingError
from retrograde.recording.diskimage import ImageFormat, header_in


class GuardedImage:
    """An open image that leads nowhere: `fd` is inherited by QEMU and stays its owner's.

    `size` is what the guest sees, in bytes.
    """

    def __init__(self, fd: int, form: ImageFormat, name: str, *, based: bool = False) -> None:
        """Check the image open as `fd`; raises RecordingError, which calls it `name`.

        `based` images may name a backing file, because a command line that has them says
        itself what they are based on.
        """
        self.fd = fd
        self.format = form
        self.size = os.fstat(fd).st_size if form == "raw" else _checked_size(fd, name, based=based)

    @property
    def path(self) -> str:
        """The name under which QEMU opens it."""
        return f"/dev/fd/{self.fd}"


def _checked_size(fd: int, name: str, *, based: bool) -> int:
    header = header_in(fd)
    if header.format != "qcow2":
        raise RecordingError(f"{name} is no qcow2 image.", _REMEDY)
    if header.external_data:
        raise RecordingError(
            f"{name} keeps its data in another file, which a recording may not.", _REMEDY
        )
    if header.backing and not based:
        raise RecordingError(f"{name} is based on another file, which it may not be.", _REMEDY)
    return header.size


_REMEDY = (
    "retrograde makes no such images: do not trust this recording. If the image is in its "
    "cache, removing the cache is enough."
)
