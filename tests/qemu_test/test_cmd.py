"""Waiting for texts on a console, byte for byte; programs found."""

from __future__ import annotations

import socket
import unittest
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from qemu_test import (
    exec_command,
    exec_command_and_wait_for_pattern,
    has_cmd,
    has_cmds,
    interrupt_interactive_console_until_pattern,
    is_readable_executable_file,
    run_cmd,
    wait_for_console_pattern,
    which,
)


class Guest:
    """A guest's end of a console, and the test and machine that talk to it."""

    def __init__(self) -> None:
        self.end, self.console = socket.socketpair()
        self.test: Any = unittest.TestCase()
        self.test.vm = SimpleNamespace(console_socket=self.console)

    def prints(self, data: bytes) -> None:
        self.end.sendall(data)

    def left(self) -> bytes:
        self.end.close()
        return self.console.recv(1 << 16)


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.end.close()
    made.console.close()


def test_what_follows_a_match_stays_unread(guest: Guest) -> None:
    guest.prints(b"one\r\ntwo login: more\n")
    assert wait_for_console_pattern(guest.test, "login: ") == b"one\r\ntwo login: "
    assert guest.left() == b"more\n"


def test_a_match_spread_over_many_reads(guest: Guest) -> None:
    import threading

    text = b"noise\nabcabcabd rest"
    writer = threading.Thread(target=lambda: [guest.prints(text[i : i + 1]) for i in range(20)])
    writer.start()
    assert wait_for_console_pattern(guest.test, "abcabd") == b"noise\nabcabcabd"
    writer.join()
    assert guest.left() == b" rest"


def test_lines_are_logged_once(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "console"):
        guest.prints(b"one\r\ntwo: \xff\nthree")
        wait_for_console_pattern(guest.test, "thr")
    assert caplog.messages[1:] == ["one", "two: \ufffd", "thr"]


def test_a_failure_before_the_success(guest: Guest) -> None:
    guest.prints(b"ok\nKernel panic - not syncing: VFS: no root\n---[ end\nlogin: ")
    with pytest.raises(AssertionError, match=r"panic.*: Kernel panic - not syncing: VFS: no root$"):
        wait_for_console_pattern(guest.test, "login: ", "Kernel panic")


def test_a_failure_whose_line_never_ends(guest: Guest) -> None:
    guest.prints(b"Kernel panic")
    with pytest.raises(AssertionError, match=r"Kernel panic$"):
        wait_for_console_pattern(guest.test, "login: ", "Kernel panic")


def test_a_success_before_the_failure(guest: Guest) -> None:
    guest.prints(b"login: Kernel panic\n")
    assert wait_for_console_pattern(guest.test, "login: ", "Kernel panic") == b"login: "


def test_a_console_that_closes(guest: Guest) -> None:
    guest.prints(b"one\ntwo")
    guest.end.close()
    with pytest.raises(AssertionError, match=r"ended .*'login: '.*one \| two"):
        wait_for_console_pattern(guest.test, "login: ")


def test_a_console_that_closes_while_typed_at(guest: Guest) -> None:
    guest.end.close()
    with pytest.raises(AssertionError, match="The console ended"):
        interrupt_interactive_console_until_pattern(guest.test, "=>")


def test_typing(guest: Guest) -> None:
    guest.prints(b"# ")
    exec_command(guest.test, "halt")
    assert guest.end.recv(100) == b"halt\r"
    vm = guest.test.vm
    del guest.test.vm
    exec_command_and_wait_for_pattern(guest.test, "ls", "# ", vm=vm)
    assert guest.end.recv(100) == b"ls\r"


def test_a_loader_is_interrupted_before_every_line(guest: Guest) -> None:
    guest.prints(b"Hit any key\r\n3\r\n=> ")
    interrupt_interactive_console_until_pattern(guest.test, "=>", interrupt_string="q")
    assert guest.end.recv(100) == b"qqq"


def test_programs() -> None:
    assert which("sh") is not None
    assert which("no-such-program") is None
    assert run_cmd(["sh", "-c", "echo out; echo err >&2; exit 3"]) == ("out\n", "err\n", 3)
    assert has_cmd("sh") == (True, "")
    assert not has_cmd("no-such-program")[0]
    assert not has_cmd("x", ["/no/such/program"])[0]
    assert has_cmds("sh", ("sh", ["sh", "-c", "true"]))[0]
    assert not has_cmds("sh", "no-such-program")[0]
    assert is_readable_executable_file("/bin/sh")
    assert not is_readable_executable_file("/bin")
    assert not is_readable_executable_file("/etc/passwd")
