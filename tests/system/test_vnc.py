"""A guest without a serial console is typed at over VNC, and that is in the recording."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from tests.command import SECONDS, assert_error, retrograde, start, wait_for
from tests.machine.picturedisk import write_key_disk

pytestmark = pytest.mark.qemu


class Screen:
    """A client of RFB 3.8 (RFC 6143) that only presses keys."""

    def __init__(self, path: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(str(path))
        assert self._receive(12) == b"RFB 003.008\n"
        self._link.sendall(b"RFB 003.008\n")
        (count,) = self._receive(1)
        assert 1 in self._receive(count)
        self._link.sendall(b"\1")  # no password
        assert self._receive(4) == bytes(4)
        self._link.sendall(b"\1")
        server = self._receive(24)
        self.size = int.from_bytes(server[:2]), int.from_bytes(server[2:4])
        self._receive(int.from_bytes(server[20:]))

    def press(self, key: str) -> None:
        for down in (1, 0):
            self._link.sendall(bytes((4, down, 0, 0)) + ord(key).to_bytes(4))

    def close(self) -> None:
        self._link.close()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self._link.recv(count - len(data))
        return data


def test_keys_are_recorded(tmp_path: Path, qemu: Qemu) -> None:
    disk, folder, place = write_key_disk(tmp_path / "d"), tmp_path / "a.retro", tmp_path / "a,b"
    process = start(
        *("record", "-o", folder, "--vnc", f"unix:{place}", "--"),
        *("-m", "4", "-drive", f"file={disk},if=floppy,format=raw"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    console = Path(f"{folder}.partial", "console.log")
    wait_for(lambda: console.exists() and b"R" in console.read_bytes(), process)
    screen = Screen(place)
    for number, key in enumerate("vnc", 2):
        screen.press(key)
        wait_for(lambda count=number: len(console.read_bytes()) >= count, process)
    assert screen.size == (720, 400)
    screen.press("q")
    _, said = process.communicate(timeout=SECONDS)
    screen.close()
    assert process.returncode == 0, said
    done = retrograde("replay", folder)
    assert done.stdout == b"Rvncq\n"
    assert retrograde("info", folder, "--json").json()["events"]["input"] >= 7


@pytest.mark.parametrize("place", ["0.0.0.0:1", "example.org:1", ":1,reverse=on", "unix:", "x"])
def test_only_places_on_this_machine(place: str, tmp_path: Path) -> None:
    done = retrograde("record", "-o", tmp_path / "a.retro", "--vnc", place, "--", "-m", "2")
    assert_error(done, 2, "is no place for a screen", "unix:PATH")
