"""Folders of the host as disks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.commandline.fatfolder import FatFolder
from retrograde.errors import EnvironmentLacks, UsageError

mtools = pytest.mark.skipif(not shutil.which("mcopy"), reason="mtools are not installed")

LONG = "A long name.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    boot = tmp_path / "esp" / "EFI" / "BOOT"
    boot.mkdir(parents=True)
    (boot / "BOOTX64.EFI").write_bytes(b"MZ" + bytes(100_000))
    (boot.parent / LONG).write_text("hello")
    return tmp_path / "esp"


def read(image: str, name: str) -> bytes:
    words = ["mtype", "-i", image, f"::{name}"]
    return subprocess.run(words, check=True, capture_output=True).stdout


@mtools
@pytest.mark.parametrize(("bits_32", "kind"), [(False, 0x0E), (True, 0x0C)])
def test_a_disk_with_one_partition(folder: Path, tmp_path: Path, bits_32: bool, kind: int) -> None:
    image = tmp_path / "esp.img"
    FatFolder(folder, bits_32=bits_32).write_image(image)
    assert read(f"{image}@@1M", "EFI/BOOT/BOOTX64.EFI") == b"MZ" + bytes(100_000)
    assert read(f"{image}@@1M", f"EFI/{LONG}") == b"hello"
    with image.open("rb") as file:
        table = file.read(512)
    entry = table[446:462]
    assert (entry[0], entry[4], table[510:]) == (0x80, kind, b"\x55\xaa")
    start, count = (int.from_bytes(entry[at : at + 4], "little") for at in (8, 12))
    assert (start + count) * 512 == image.stat().st_size
    # Most of it is a hole.
    assert image.stat().st_blocks * 512 < 4 << 20


@mtools
def test_a_floppy_disk(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    FatFolder(folder, floppy=True).write_image(image)
    assert image.stat().st_size == 1440 << 10
    assert read(str(image), f"EFI/{LONG}") == b"hello"


@mtools
def test_the_same_folder_gives_the_same_image(folder: Path, tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("a.img", "b.img")]
    for image in images:
        FatFolder(folder).write_image(image)
    assert images[0].read_bytes() == images[1].read_bytes()


@mtools
def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    FatFolder(tmp_path / "empty").write_image(tmp_path / "a.img")
    assert (tmp_path / "a.img").stat().st_size == 32 << 20


@mtools
def test_too_much_for_a_floppy_disk(folder: Path, tmp_path: Path) -> None:
    (folder / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(EnvironmentLacks, match="mtools could not"):
        FatFolder(folder, floppy=True).write_image(tmp_path / "a.img")


def odd_pipe(path: Path) -> None:
    os.mkfifo(path)


def odd_loop(path: Path) -> None:
    path.symlink_to(path.parent)


def odd_end(path: Path) -> None:
    path.symlink_to(path.parent / "not there")


@pytest.mark.parametrize("put", [odd_pipe, odd_loop, odd_end])
@pytest.mark.parametrize("floppy", [False, True])
def test_what_is_no_file_of_a_disk(
    folder: Path, tmp_path: Path, put: Callable[[Path], None], floppy: bool
) -> None:
    put(folder / "EFI" / "odd")
    with pytest.raises(UsageError, match="odd is neither a file nor a folder"):
        FatFolder(folder, floppy=floppy).write_image(tmp_path / "a.img")


def test_without_mtools(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="not installed"):
        FatFolder(folder).write_image(tmp_path / "a.img")
