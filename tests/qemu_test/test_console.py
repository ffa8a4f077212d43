"""The console's pump: bytes both ways, and no guest ever waits for a test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_test.console import ConsolePump

MUCH = 8 << 20


class Line:
    """A pump, QEMU's end of its console, and the transcript's path."""

    def __init__(self, folder: Path) -> None:
        self.qemu, ours = socket.socketpair()
        self.path = folder / "transcript"
        self.pump = ConsolePump(ours, self.path.open("w+b", buffering=0))


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.qemu.close()
    made.pump.close()


def test_both_ways(line: Line) -> None:
    line.qemu.sendall(b"login: ")
    assert line.pump.socket.recv(100) == b"login: "
    line.pump.socket.sendall(b"root\r")
    assert line.qemu.recv(100) == b"root\r"


def test_a_chatty_guest_is_never_blocked(line: Line) -> None:
    line.qemu.settimeout(60)
    line.qemu.sendall(bytes(range(256)) * (MUCH // 256))
    line.qemu.close()
    with line.pump.socket.makefile("rb") as file:
        assert file.read() == bytes(range(256)) * (MUCH // 256)
    assert line.path.stat().st_size == MUCH


def test_a_guest_that_takes_no_input_is_still_heard(line: Line) -> None:
    line.pump.socket.settimeout(60)
    line.pump.socket.sendall(b"x" * MUCH)  # more than the socket to QEMU holds
    line.qemu.sendall(b"printed")
    assert line.pump.socket.recv(100) == b"printed"


def test_what_was_printed_last_is_not_lost(line: Line) -> None:
    line.qemu.sendall(b"last words")
    line.qemu.close()
    line.pump.close()
    assert line.path.read_bytes() == b"last words"


def test_the_end_comes_after_what_was_printed(line: Line) -> None:
    line.qemu.sendall(b"bye")
    line.qemu.close()
    assert line.pump.socket.recv(2) == b"by"
    assert line.pump.socket.recv(2) == b"e"
    assert line.pump.socket.recv(2) == b""


def test_a_test_that_closes_its_end_stops_nothing(line: Line) -> None:
    line.pump.socket.close()
    line.qemu.settimeout(60)
    line.qemu.sendall(b"x" * MUCH)
    line.qemu.close()
    line.pump.close()
    assert line.path.stat().st_size == MUCH


def test_ending_while_a_file_of_the_console_is_open(line: Line) -> None:
    file = line.pump.socket.makefile("rb")
    line.qemu.close()
    line.pump.close()
    assert file.read() == b""
    file.close()
