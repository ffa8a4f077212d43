"""The disks of a user's command line: -drive, -blockdev, -hda and their like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from retrograde.commandline.refusals import RR, Refusal, refuse
from retrograde.commandline.userfiles import UserFiles
from retrograde.commandline.userjson import json_pairs
from retrograde.errors import ArgumentRefused
from retrograde.recording.keyval import Pairs, split
from retrograde.recording.machinespec import Disk, Interface, Layer

Media = Literal["disk", "cdrom"]

SHORTHANDS: dict[str, tuple[Interface, Media, int | None]] = {
    "hda": ("default", "disk", 0),
    "hdb": ("default", "disk", 1),
    "hdc": ("default", "disk", 2),
    "hdd": ("default", "disk", 3),
    "cdrom": ("default", "cdrom", 2),
    "fda": ("floppy", "disk", 0),
    "fdb": ("floppy", "disk", 1),
    "sd": ("sd", "disk", None),
    "mtdblock": ("mtd", "disk", None),
    "pflash": ("pflash", "disk", None),
}
"""Interface, medium and index that an option implies (QEMU system/vl.c)."""

# How the host reaches the image: caches, threads, limits. The guest's view is the same.
_HOST_TUNING = re.compile(
    r"cache(\..*)?|aio|discard|detect-zeroes|[rw]error|copy-on-read|auto-read-only|locking"
    r"|throttling\..*|(bps|iops)(_.*)?|overlap-check(\..*)?|lazy-refcounts|.*cache-size"
    r"|cache-clean-interval|pass-discard-.*"
)
_DRIVE_KEYS = frozenset(
    (
        *("file", "format", "driver", "if", "media", "id", "index", "bus", "unit"),
        *("snapshot", "readonly", "read-only"),
    )
)
_UNSUPPORTED = Refusal(
    "this way of building a disk is not known to be recordable",
    "Use -drive file=IMAGE,format=raw (or qcow2),if=none,id=NAME.",
)


def shorthand_disk(option: str, value: str, files: UserFiles) -> Disk:
    """Return the disk of `-hda FILE` and the like."""
    interface, media, index = SHORTHANDS[option]
    layers = files.add_image(value, "", f"-{option}")
    writable = media == "disk"
    return Disk("", interface, media, writable, layers, index)


def drive_disk(pairs: Pairs, files: UserFiles) -> Disk:
    """Return the disk of one -drive."""
    given = _normal(pairs, "-drive")
    if given.get("driver") == "blkreplay":
        refuse("-drive driver=blkreplay", RR)
    if unknown := given.keys() - _DRIVE_KEYS:
        refuse(f"-drive {min(unknown)}=", _UNSUPPORTED)
    interface = given.get("if", "default")
    if interface not in get_args(Interface):
        refuse(f"-drive if={interface}", _UNSUPPORTED)
    media: Media = "cdrom" if given.get("media") == "cdrom" else "disk"
    image_format = given.get("format", given.get("driver", ""))
    if image_format == "vvfat":  # fat: says it, too
        image_format = "raw"
    layers: tuple[Layer, ...] = ()
    if given.get("file"):
        layers = files.add_image(given["file"], image_format, "-drive")
    return Disk(
        given.get("id", ""),
        interface,  # type: ignore[arg-type]  # checked above
        media,
        bool(layers) and media == "disk" and not _read_only(given),
        layers,
        *(_slot(given, key) for key in ("index", "bus", "unit")),
    )


@dataclass(frozen=True)
class _BlockNode:
    driver: str
    child: str
    filename: str
    read_only: bool


class BlockNodes:
    """The nodes of all -blockdev options; the disks are those no other node is built on."""

    def __init__(self) -> None:
        self._nodes: dict[str, _BlockNode] = {}

    def add(self, value: str) -> None:
        """Take in one -blockdev, in QEMU's key=value or JSON syntax."""
        pairs = json_pairs(value) if value.startswith("{") else split(value, "driver")
        given = _normal(pairs, "-blockdev")
        name = given.pop("node-name", "")
        driver = given.pop("driver", "")
        read_only = _read_only(given)
        for key in ("readonly", "read-only"):
            given.pop(key, None)
        filename = given.pop("filename", "")
        child = given.pop("file", "")
        if driver == "blkreplay":
            refuse("-blockdev driver=blkreplay", RR)
        if driver not in ("file", "raw", "qcow2") or given or not name:
            refuse(f"-blockdev {driver or name}", _UNSUPPORTED)
        self._nodes[name] = _BlockNode(driver, child, filename, read_only)

    def disks(self, files: UserFiles) -> Sequence[Disk]:
        """Return the disks, which devices find by their node names."""
        children = {node.child for node in self._nodes.values()}
        return [
            self._disk(name, node, files)
            for name, node in self._nodes.items()
            if name not in children
        ]

    def _disk(self, name: str, node: _BlockNode, files: UserFiles) -> Disk:
        image_format = "raw" if node.driver == "file" else node.driver
        protocol = self._nodes.get(node.child)
        if protocol is not None and protocol.driver != "file":
            refuse(f"-blockdev {name}", _UNSUPPORTED)
        filename = protocol.filename if protocol else node.filename or node.child
        if protocol is None and node.child:
            raise ArgumentRefused(
                f"-blockdev {name}: there is no node {node.child}.", "Check the node names."
            )
        layers = files.add_image(filename, image_format, "-blockdev")
        return Disk(name, "none", "disk", not node.read_only, layers)


def _normal(pairs: Pairs, option: str) -> dict[str, str]:
    """Return the properties without host tuning, and with `file.filename` as a name."""
    given = {key: value for key, value in pairs if not _HOST_TUNING.fullmatch(key)}
    given = {key: value for key, value in given.items() if not _file_tuning(key)}
    if given.get("file.driver") == "vvfat":
        _name_folder(given)
    if given.pop("file.driver", "file") != "file":
        refuse(f"{option} file.driver=", _UNSUPPORTED)
    if "file.filename" in given:
        given["filename" if option == "-blockdev" else "file"] = given.pop("file.filename")
    return given


def _name_folder(given: dict[str, str]) -> None:
    """Put `file.driver=vvfat,file.dir=…` as `file=fat:…`, which says the same."""
    del given["file.driver"]
    keys = ("dir", "floppy", "fat-type", "rw", "label")
    asked = {key: given.pop(f"file.{key}", "") for key in keys}
    floppy = "floppy:" if asked["floppy"] in ("on", "yes", "true") else ""
    bits = f"{asked['fat-type']}:" if asked["fat-type"] in ("12", "16", "32") else ""
    given["file"] = f"fat:{floppy}{bits}{asked['dir']}"


def _file_tuning(key: str) -> bool:
    return key.startswith("file.") and bool(_HOST_TUNING.fullmatch(key.removeprefix("file.")))


def _read_only(given: dict[str, str]) -> bool:
    said = given.get("read-only", given.get("readonly", "off"))
    return said in ("on", "yes", "true")


def _slot(given: dict[str, str], key: str) -> int | None:
    if key not in given:
        return None
    if not given[key].isdecimal():
        raise ArgumentRefused(f"-drive {key}={given[key]} is not a number.", "Check it.")
    return int(given[key])
