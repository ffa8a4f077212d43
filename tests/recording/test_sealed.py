"""Documents that tell when they are damaged."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.recording.folder import Folder
from retrograde.recording.sealed import Damaged, Kept, seal, unseal
from tests.damage import cut, flip, spoil

NAMES = ("a.json", "a.copy.json")


def kept(folder: Path) -> Kept[dict[str, int]]:
    return Kept(Folder.at(folder), "a.json", dict[str, int], 1000)


def test_no_flipped_bit_is_believed() -> None:
    whole = seal({"here": 7})
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        try:
            assert unseal(bytes(data), dict[str, int]) == {"here": 7}  # what is around it
        except Damaged:
            continue


def test_what_is_whole_but_something_else() -> None:
    with pytest.raises(Damaged):
        unseal(seal(["here"]), dict[str, int])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("name", NAMES)
def test_one_of_the_two_is_enough(
    name: str, damage: Callable[[Path, random.Random], None], tmp_path: Path
) -> None:
    kept(tmp_path).write({"here": 7})
    before = (tmp_path / name).read_bytes()
    damage(tmp_path / name, random.Random(5))
    assert kept(tmp_path).read() == {"here": 7}
    assert (tmp_path / name).read_bytes() == before
    (tmp_path / name).unlink()
    assert kept(tmp_path).read() == {"here": 7}
    assert (tmp_path / name).read_bytes() == before


def test_neither(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kept(tmp_path).read()
    spoil(tmp_path / "a.json", b"{}")
    with pytest.raises(Damaged):
        kept(tmp_path).read()


def test_a_limit_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost because no file can be opened just now."""
    kept(tmp_path).write({"here": 7})

    def full(_folder: Folder, _name: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open", full)
        with pytest.raises(OSError, match="Too many open files"):
            kept(tmp_path).read()
    assert kept(tmp_path).read() == {"here": 7}
