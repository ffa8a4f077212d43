"""The files a user's command line names, numbered as they will be in the manifest."""

from __future__ import annotations

import re
from pathlib import Path

from retrograde.commandline.fatfolder import FatFolder
from retrograde.commandline.refusals import PASSTHROUGH, Refusal, refuse
from retrograde.errors import ArgumentRefused
from retrograde.recording.diskimage import ImageFormat, ImageHeader, read_header
from retrograde.recording.machinespec import Layer

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*:")
_CHAIN_LIMIT = 32

_REMOTE = Refusal(
    "only images in files of this machine are kept", "Copy the disk into a local image first."
)
_CONVERT = "Convert it: qemu-img convert -O qcow2 IMAGE NEW.qcow2"


class UserFiles:
    """Files in the order they were first named; the same file twice is one input."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.folders: dict[int, FatFolder] = {}
        """Those of `paths` that are images still to be made, by number."""

    def add(self, name: str, option: str) -> int:
        """Take in the file `name` of `option` and return its number.

        Raises ArgumentRefused when it is missing or not a regular file.
        """
        path = Path(name).absolute()
        if not path.exists():
            raise ArgumentRefused(f"{option}: there is no file {name}.", "Check the path.")
        if path.is_block_device() or path.is_char_device():
            refuse(f"{option} {name}", PASSTHROUGH)
        if not path.is_file():
            raise ArgumentRefused(f"{option}: {name} is not a regular file.", "Check the path.")
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ArgumentRefused(
                f"{option}: the name {name!r} is not UTF-8.", "Rename the file."
            ) from error
        if path not in self.paths:
            self.paths.append(path)
        return self.paths.index(path)

    def _add_folder(self, folder: FatFolder, option: str) -> int:
        if not folder.folder.is_dir():
            raise ArgumentRefused(
                f"{option} fat: there is no folder {folder.folder}.", "Check the path."
            )
        self.paths.append(folder.folder.with_name(f"{folder.folder.name or 'folder'}.img"))
        self.folders[len(self.paths) - 1] = folder
        return len(self.paths) - 1

    def add_image(self, name: str, format_name: str, option: str) -> tuple[Layer, ...]:
        """Take in a disk image with the images behind it, first the one the guest sees.

        `format_name` is what the user says about it, "" for nothing.
        """
        layers: list[Layer] = []
        if asked := FatFolder.parse(name):
            return (Layer(self._add_folder(asked, option), "raw"),)
        while name:
            if len(layers) == _CHAIN_LIMIT:
                raise ArgumentRefused(
                    f"{option}: more than {_CHAIN_LIMIT} images behind each other.", _CONVERT
                )
            name = _local_name(name, option)
            number = self.add(name, option)
            header = _header(self.paths[number], option)
            kind = _agreed_format(format_name, header, f"{option} {name}")
            layers.append(Layer(number, kind))
            if kind == "raw" or not header.backing:
                break
            folder = self.paths[number].parent
            backing = _local_name(header.backing, option)
            name, format_name = str(folder / backing), header.backing_format
        return tuple(layers)


def _local_name(name: str, option: str) -> str:
    """Return `name` without QEMU's `file:` protocol; refuse any other protocol."""
    name = name.removeprefix("file:")
    if _PROTOCOL.match(name) and not Path(name).exists():
        refuse(f"{option} {name}", _REMOTE)
    return name


def _header(path: Path, option: str) -> ImageHeader:
    try:
        return read_header(path)
    except OSError as error:
        raise ArgumentRefused(
            f"{option}: {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error


def _agreed_format(said: str, header: ImageHeader, argument: str) -> ImageFormat:
    """Return the image's format from what the user and the image itself say."""
    if said == "raw":
        return "raw"
    foreign = header.foreign or (said if said not in ("", "qcow2") else "")
    if foreign:
        refuse(argument, Refusal(f"disk images of format {foreign} are not supported", _CONVERT))
    if said == "qcow2" and header.format != "qcow2":
        raise ArgumentRefused(f"{argument} is not a qcow2 image.", "Check its format.")
    if header.external_data:
        refuse(argument, Refusal("its data is in another file", _CONVERT))
    return header.format
