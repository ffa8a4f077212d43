"""Copies that cost what is in them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from retrograde.recording.sparse import copy_sparse, write_sparse

MIB = 1 << 20
SIZE = 40 * MIB + 5


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Data, written zeros, a hole, data at the end."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(b"head" + bytes(8 * MIB))
        file.seek(SIZE - 4)
        file.write(b"tail")
    return path


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_copy_has_no_blocks_of_zeros(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shares_nothing(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(fcntl, "ioctl", shares_nothing)
    copy = tmp_path / "copy.img"
    with image.open("rb") as source, copy.open("wb") as target:
        copy_sparse(source, target)
    assert copy.read_bytes() == image.read_bytes()
    assert used(copy) < MIB < used(image)


def test_a_copy_as_the_file_system_makes_it(image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    with image.open("rb") as source, copy.open("wb") as target:
        copy_sparse(source, target)
    assert copy.read_bytes() == image.read_bytes()


def test_a_file_that_ends_in_a_hole(tmp_path: Path) -> None:
    path, copy = tmp_path / "a", tmp_path / "b"
    with path.open("wb") as file:
        file.write(b"x")
        file.truncate(3 * MIB)
    with path.open("rb") as source, copy.open("wb") as target:
        copy_sparse(source, target)
    assert copy.read_bytes() == path.read_bytes()


def test_zeros_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a"
    pieces = [b"a" * 10, bytes(MIB), b"b", bytes(70_000), bytes(3)]
    with path.open("wb") as file:
        for piece in pieces:
            write_sparse(file, piece)
        file.truncate(sum(map(len, pieces)))
    assert path.read_bytes() == b"".join(pieces)
