"""What was on the guest's screen, compared with a machine that runs now and shows it."""

from __future__ import annotations

import os
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

import retrograde
from retrograde.machine.qemu import Qemu
from retrograde.timeline.sync import open_timeline
from tests.command import assert_error
from tests.command import retrograde as command
from tests.machine.picturedisk import LETTERS, write_picture_disk

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def pictures(qemu: Qemu, tmp_path_factory: pytest.TempPathFactory) -> retrograde.Recording:
    """A recording of three pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    disk = write_picture_disk(folder / "disk.img")
    return retrograde.record(folder / "a.retro", ["-drive", f"file={disk},if=floppy,format=raw"])


def live(qemu: Qemu, folder: Path, stages: int) -> bytes:
    """Return the screen, as a PPM file, of a machine that runs so many stages and stays there."""
    disk = write_picture_disk(folder / "live.img", stages, ends=False)
    picture, letter = folder / "live.ppm", LETTERS[stages - 1]
    machine = subprocess.Popen(
        [
            *(str(qemu.path), "-display", "none", "-monitor", "stdio", "-chardev"),
            *("pipe,id=com,path=" + str(folder / "com"), "-serial", "chardev:com"),
            *("-drive", f"file={disk},if=floppy,format=raw"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with machine, (folder / "com.out").open("rb", buffering=0) as said:
        while said.read(1) != letter.encode():
            pass
        machine.communicate(f"stop\nscreendump {picture}\nquit\n")
    return picture.read_bytes()


def pixels_of(png: bytes) -> bytes:
    """Return the rows of a PNG file, each after the number of its filter."""
    at, data = 8, b""
    while at < len(png):
        length, kind = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(png[at + 8 + length : at + 12 + length])
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    return zlib.decompress(data)


@pytest.mark.parametrize("stages", [3, 1, 2])
def test_pixels_are_those_of_a_live_machine(
    stages: int, pictures: retrograde.Recording, qemu: Qemu, tmp_path: Path
) -> None:
    for end in ("in", "out"):
        os.mkfifo(tmp_path / f"com.{end}")
    picture = tmp_path / "then.png"
    words = ("--at", f"console:{LETTERS[:stages]}", "-o", picture)
    assert command("screen", pictures.path, *words).status == 0
    shape, ppm = (400, 720) if stages == 1 else (400, 640), live(qemu, tmp_path, stages)
    now = np.frombuffer(ppm, np.uint8)[-shape[0] * shape[1] * 3 :].reshape(shape[0], -1)
    assert len(np.unique(now)) > 3, "this is an empty screen"
    then = np.frombuffer(pixels_of(picture.read_bytes()), np.uint8).reshape(shape[0], -1)
    assert (then[:, 0] == 0).all()
    assert (then[:, 1:] == now).all()


def test_from_python_and_from_gdb(pictures: retrograde.Recording, tmp_path: Path) -> None:
    picture = pictures.screen(at="console:TG")
    assert picture.pixels.shape == (400, 640, 3)
    assert (pictures.screen(at="console:TGW").pixels != picture.pixels).any()
    file = tmp_path / "a b.png"
    done = command(
        *("debug", pictures.path, "--at", "console:TG", "--", "-batch"),
        *("-ex", f'retro screen "{file}"', "-ex", "retro screen /nowhere/x.png"),
    )
    assert file.read_bytes() == picture.png()
    assert str(file) in done.stdout.decode()
    assert "/nowhere/x.png cannot be written: No such file" in done.stderr


def test_in_any_order(pictures: retrograde.Recording) -> None:
    """What was drawn before, in another mode, is not seen again."""
    alone = {at: pictures.screen(at=f"console:{at}").png() for at in ("T", "TG", "TGW")}
    with open_timeline(pictures) as timeline:
        for at in ("T", "TGW", "TG", "T", "TG", "TGW", "T"):
            timeline.seek(f"console:{at}")
            assert timeline.screen().png() == alone[at]


def test_a_machine_without_a_screen(tmp_path: Path, qemu: Qemu) -> None:
    disk = write_picture_disk(tmp_path / "disk.img")
    words = ["-vga", "none", "-drive", f"file={disk},if=floppy,format=raw"]
    recording = retrograde.record(tmp_path / "a.retro", words)
    done = command("screen", recording.path, "-o", tmp_path / "x.png")
    assert_error(done, 2, "This machine has no screen")
    assert not (tmp_path / "x.png").exists()
