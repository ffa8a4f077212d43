"""What happens to a file in a cache, and what somebody may have written there on purpose."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from retrograde.recording.sealed import checksum, copy_of, seal


def flip(path: Path, dice: random.Random) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def cut(path: Path, dice: random.Random) -> None:
    """Leave only the beginning of a file."""
    os.truncate(path, dice.randrange(path.stat().st_size))


def document(path: Path) -> dict[str, Any]:
    """Return what a sealed document says."""
    content: dict[str, Any] = msgspec.json.decode(path.read_bytes())["content"]
    return content


def rewrite(path: Path, **fields: object) -> None:
    """Make a sealed document say something else, as its author would."""
    data = seal(document(path) | fields)
    for name in (path.name, copy_of(path.name)):
        path.with_name(name).write_bytes(data)


def repeat_sums(checkpoints: Path) -> None:
    """Make the checksums of checkpoints agree with their files, as an author would."""
    pages = (checkpoints / "pages.bin").read_bytes()
    sums = [checksum(pages[at : at + 4096]) for at in range(0, len(pages), 4096)]
    (checkpoints / "sums.bin").write_bytes(np.array(sums, np.uint32).tobytes())
    index = document(checkpoints / "index.json")
    rewrite(
        checkpoints / "index.json",
        sizes={name: (checkpoints / name).stat().st_size for name in index["sizes"]},
        sums={name: checksum((checkpoints / name).read_bytes()) for name in index["sums"]},
    )


def move_positions(checkpoints: Path) -> None:
    """Make checkpoints of an index.json be of the positions after their own."""
    index = checkpoints / "index.json"
    points = document(index)["checkpoints"]
    rewrite(index, checkpoints=[one | {"position": one["position"] + 1} for one in points])


def break_states(checkpoints: Path) -> None:
    """Make a device of all snapshots one that QEMU does not know."""
    image = checkpoints / "machine.qcow2"
    data = image.read_bytes()
    assert b"\x05timer" in data
    image.write_bytes(data.replace(b"\x05timer", b"\x05tomer"))
    repeat_sums(checkpoints)


def need_more(checkpoints: Path) -> None:
    """Have the image need a feature that no QEMU has (docs/interop/qcow2.txt, bytes 72 to 79)."""
    image = checkpoints / "machine.qcow2"
    data = bytearray(image.read_bytes())
    data[72] |= 0x40
    image.write_bytes(data)
    repeat_sums(checkpoints)


def spoil(path: Path, content: bytes) -> None:
    """Put something else in place of a sealed document and of its copy."""
    for name in (path.name, copy_of(path.name)):
        path.with_name(name).write_bytes(content)
