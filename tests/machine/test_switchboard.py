"""Several ports kept in one order."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from retrograde.machine.switchboard import Switchboard
from retrograde.recording.ports import read_runs

NAMES = ("console", "debugcon", "semihosting")


def test_the_order_is_kept(tmp_path: Path) -> None:
    board = Switchboard(NAMES, tmp_path)
    written = [(index % 7 % 3, f"{index},".encode()) for index in range(500)]
    ends = list(board.ends.values())
    for port, data in written:
        ends[port].send(data)
    board.close()
    kept = read_runs((tmp_path / "ports.log").read_bytes(), 3, whole=True)
    assert kept.data == b"".join(data for _, data in written)
    for port in range(3):
        assert kept.of(port) == b"".join(data for to, data in written if to == port)
    assert (tmp_path / "console.log").read_bytes() == kept.of(0)


def test_a_long_string_at_once(tmp_path: Path) -> None:
    board = Switchboard(NAMES, tmp_path)
    text = bytes(range(256)) * 1600
    assert board.ends["semihosting"].send(text) == len(text)
    board.close()
    kept = read_runs((tmp_path / "ports.log").read_bytes(), 3, whole=True)
    assert kept.of(2) == text


def test_a_console_that_is_seen_and_typed_at(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    reads, writes = os.pipe()
    board = Switchboard(NAMES, tmp_path, theirs, {"debugcon": [writes]})
    ends = board.ends
    ends["debugcon"].send(b"debug")
    ends["console"].send(b"login:")
    assert ours.recv(100) == b"login:"
    assert os.read(reads, 100) == b"debug"
    ours.send(b"me")
    assert [ends["console"].recv(100) for _ in "me"] == [b"m", b"e"]
    board.close()
    for end in (ours, theirs):
        end.close()
    for fd in (reads, writes):
        os.close(fd)


def test_a_file_that_cannot_be_written_is_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "ports.log").symlink_to("/dev/full")
    board = Switchboard(NAMES, tmp_path)
    board.ends["console"].send(b"x")
    with pytest.raises(OSError, match="No space"):
        board.close()
