"""The reference guest: Debian's cloud kernel with a busybox initrd, fetched and cached.

Debian's kernel package is downloaded and unpacked, never installed. The initrd prints
INIT-START and the kernel's version, counts in a shell loop, prints INIT-DONE and powers
off: about 2.2 G instructions from reset, most of them the kernel's boot.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from retrograde.guests import apt, cpio
from retrograde.guests.cached import cached
from retrograde.guests.guest import Guest

_INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo INIT-START
/bin/busybox cat /proc/version
i=0; while [ $i -lt 45000 ]; do i=$((i+1)); done
echo INIT-DONE
/bin/busybox poweroff -f
"""
_KERNEL = "linux-image-cloud-amd64:amd64"
_KERNEL_IMAGE = r"linux-image-\S+-cloud-amd64"
_BUSYBOX = "busybox-static:amd64"


def reference_guest() -> Guest:
    """Return the x86_64 reference guest, fetching what it is made of on first use.

    Raises EnvironmentLacks where the packages cannot be had (no apt, no network, lists
    never updated and no right to update them): use a built-in guest there.
    """
    directory = cached(f"reference-x86_64-{hashlib.sha256(_INIT).hexdigest()[:8]}", _fetch_into)
    kernel, initrd = directory / "vmlinuz", directory / "initrd.cpio"
    return Guest(
        name="reference",
        target="x86_64",
        description=f"Debian kernel and busybox: {(directory / 'packages').read_text().strip()}",
        qemu_args=[
            *("-M", "pc", "-m", "128"),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "console=ttyS0 panic=-1"),
        ],
        files=(kernel, initrd),
        start="INIT-START",
        done="INIT-DONE",
    )


def _fetch_into(result: Path, work: Path) -> None:
    unpacked = work / "unpacked"
    unpacked.mkdir()
    packages = [apt.fetch(_KERNEL, _KERNEL_IMAGE, unpacked), apt.fetch(_BUSYBOX, None, unpacked)]
    (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
    shutil.copyfile(kernel, result / "vmlinuz")
    (result / "initrd.cpio").write_bytes(initrd(busybox_in(unpacked)))
    (result / "packages").write_text(", ".join(packages) + "\n")


def busybox_in(unpacked: Path) -> bytes:
    """Return the program out of the unpacked package; Debian 13 moved it."""
    places = (unpacked / "bin/busybox", unpacked / "usr/bin/busybox")
    return next(path for path in places if path.is_file()).read_bytes()


def initrd(busybox: bytes) -> bytes:
    """Return the reference guest's initrd, given a static busybox: always the same bytes."""
    return cpio.archive(
        [
            cpio.directory("bin"),
            cpio.directory("dev"),
            cpio.directory("proc"),
            cpio.character_device("dev/console", 5, 1),
            cpio.program("bin/busybox", busybox),
            cpio.program("init", _INIT),
        ]
    )
