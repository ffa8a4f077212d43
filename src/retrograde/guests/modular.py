"""Debian's generic kernel with the modules a guest needs, and busybox: what uses devices.

The kernel's package is downloaded and unpacked, never installed.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from retrograde.errors import EnvironmentLacks
from retrograde.guests import apt, cpio
from retrograde.guests.reference import busybox_in

_KERNEL = "linux-image-amd64:amd64"
_KERNEL_IMAGE = r"linux-image-\S+-amd64"
_BUSYBOX = "busybox-static:amd64"


def make(result: Path, work: Path, init: bytes, lists: Mapping[str, Sequence[str]]) -> None:
    """Put `vmlinuz` and `initrd.cpio` into `result`; raises EnvironmentLacks as `apt.fetch` does.

    The initrd runs `init`. Its file /m/NAME.ko is a module, and each of `lists` is a file of the
    names of its modules, with those they depend on, in the order to load them in. Modules that
    this kernel does not have, or has built in, are left out.
    """
    unpacked = work / "unpacked"
    unpacked.mkdir()
    apt.fetch(_KERNEL, _KERNEL_IMAGE, unpacked)
    apt.fetch(_BUSYBOX, None, unpacked)
    (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
    shutil.copyfile(kernel, result / "vmlinuz")
    known = {path.stem.replace("-", "_"): path for path in unpacked.rglob("*.ko")}
    found = {name: _in_order(known, wanted) for name, wanted in lists.items()}
    (result / "initrd.cpio").write_bytes(_initrd(busybox_in(unpacked), init, found))


def unpacked_kernel(image: bytes) -> bytes:
    """Return the ELF file in a bzImage, which QEMU starts (PVH): unpacking takes a guest long.

    The header is that of Documentation/arch/x86/boot.rst. Raises EnvironmentLacks for a kernel
    that is not packed with xz, as Debian 12's is.
    """
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    try:
        # Behind it stands the size of what is packed.
        return lzma.LZMADecompressor().decompress(image[start : start + length])
    except lzma.LZMAError as error:
        raise EnvironmentLacks(
            "This kernel is not packed with xz.", "Take the kernel of Debian 12.", str(error)
        ) from error


def _in_order(known: Mapping[str, Path], wanted: Sequence[str]) -> dict[str, bytes]:
    """Return the modules wanted and those they depend on, which come first."""
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in known:
            return
        data = known[name].read_bytes()
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        found[name] = data

    for name in wanted:
        add(name)
    return found


def _initrd(busybox: bytes, init: bytes, lists: Mapping[str, Mapping[str, bytes]]) -> bytes:
    modules = {name: data for found in lists.values() for name, data in found.items()}
    return cpio.archive(
        [
            *(cpio.directory(name) for name in ("bin", "dev", "m", "proc", "sys")),
            cpio.character_device("dev/console", 5, 1),
            cpio.program("bin/busybox", busybox),
            cpio.program("init", init),
            *(cpio.program(name, "\n".join(found).encode()) for name, found in lists.items()),
            *(cpio.program(f"m/{name}.ko", data) for name, data in modules.items()),
        ]
    )
