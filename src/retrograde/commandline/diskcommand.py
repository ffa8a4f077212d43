"""The part of QEMU's command line that makes the guest's disks.

A disk is its image layers, opened read-only, a fresh overlay that takes the guest's
writes, and blkreplay on top, which records in which order requests complete. Every file
is opened by its own option, with its format, and named in the `backing` of the one
above: no image header has a say in which files are opened, and no image the user gave
is ever written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import InternalError
from retrograde.recording.allowlist import RESERVED
from retrograde.recording.keyval import escape, join
from retrograde.recording.machinespec import Disk, MachineSpec


def disk_words(
    spec: MachineSpec, layers: Mapping[int, GuardedImage], overlays: Sequence[GuardedImage]
) -> Iterator[list[str]]:
    """Yield the words for each of the machine's disks, in order.

    `layers` and `overlays` are those of command.Launch.
    """
    wanted = len(spec.overlaid())
    if wanted != len(overlays):
        raise InternalError(f"{wanted} overlays are needed, {len(overlays)} given.")
    fresh = iter(overlays)
    for number, disk in enumerate(spec.disks()):
        stack = [_Node(layers[layer.input]) for layer in reversed(disk.layers)]
        if disk.writable:
            stack.append(_Node(next(fresh), writable=True))
        yield list(_disk(disk, number, stack, direct=spec.is_synchronous(disk)))


def private_drive(name: str, vmstate: GuardedImage) -> str:
    """Return the value of a -drive over our own qcow2 image that no board picks up."""
    image = _Node(vmstate, writable=True)
    return f"if=none,id={name},file={escape(image.pseudo_name(None))}"


@dataclass(frozen=True)
class _Node:
    """One image file as a node of QEMU's block graph; `below` is the node that backs it."""

    image: GuardedImage
    writable: bool = False

    def options(self, below: str | None) -> dict[str, object]:
        options: dict[str, object] = {
            "driver": self.image.format,
            "read-only": not self.writable,
            "file": {"driver": "file", "filename": self.image.path},
        }
        if self.image.format == "qcow2":
            options["backing"] = below
        return options

    def pseudo_name(self, below: str | None) -> str:
        """Return the file name that stands for these options (QEMU's `json:` protocol)."""
        return "json:" + json.dumps(self.options(below))


def _disk(disk: Disk, number: int, stack: list[_Node], *, direct: bool) -> Iterator[str]:
    """Yield the words of a disk made of `stack`, the lowest layer first.

    A `direct` one has no blkreplay: its top is opened by the -drive itself.
    """
    place = list(_place(disk))
    if not stack:
        yield from ("-drive", join((*place, ("media", disk.media))))
        return
    below: str | None = None
    for depth, node in enumerate(stack[:-1] if direct else stack):
        name = f"{RESERVED}-{number}-{depth}"
        yield from ("-blockdev", json.dumps({"node-name": name, **node.options(below)}))
        below = name
    if disk.media == "cdrom":
        place.append(("media", "cdrom"))
    if not disk.writable:
        place.append(("read-only", "on"))
    if direct:
        place.append(("file", stack[-1].pseudo_name(below)))
    else:
        place += [("driver", "blkreplay"), ("image", str(below))]
    yield from ("-drive", join(place))


def _place(disk: Disk) -> Iterator[tuple[str, str]]:
    """Yield the properties that say where the board finds the disk."""
    if disk.interface != "default":
        yield "if", disk.interface
    if disk.id:
        yield "id", disk.id
    for key, slot in (("index", disk.index), ("bus", disk.bus), ("unit", disk.unit)):
        if slot is not None:
            yield key, str(slot)
