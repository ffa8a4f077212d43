"""Talk to a guest over its console, and find programs.

Lines of the console go to the logger `console` as they are read. What a helper waits for
matches within a line, as soon as its last byte has come; what follows stays unread.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .config import BUILD_DIR

if TYPE_CHECKING:
    from .machine import QEMUMachine
    from .testcase import QemuSystemTest

_CHUNK = 4096
_REST_OF_LINE_SECONDS = 1.0
"""How long the rest of a line that tells a failure is waited for, to quote it."""


def which(tool: str) -> str | None:
    """Return the path of the program `tool`; None when it is not on PATH."""
    return shutil.which(tool)


def is_readable_executable_file(path: str | Path) -> bool:
    """Whether `path` is a file that can be read and run."""
    return Path(path).is_file() and os.access(path, os.R_OK | os.X_OK)


def run_cmd(args: list[str]) -> tuple[str, str, int]:
    """Run a program; return its stdout, stderr and exit code."""
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout, done.stderr, done.returncode


def has_cmd(name: str, args: list[str] | None = None) -> tuple[bool, str]:
    """Return whether `args` (default: `which name`) succeeds, and if not, why."""
    try:
        _, errors, status = run_cmd(args or ["which", name])
    except OSError as error:
        return False, str(error)
    return status == 0, "" if status == 0 else f"{name}: {errors.strip() or 'not found'}"


def has_cmds(*cmds: str | tuple[str, list[str]]) -> tuple[bool, str]:
    """Return whether `has_cmd` holds for all of `cmds`, and if not, why."""
    for cmd in cmds:
        found, why = has_cmd(cmd) if isinstance(cmd, str) else has_cmd(*cmd)
        if not found:
            return False, why
    return True, ""


def get_qemu_img(test: QemuSystemTest) -> str:
    """Return the path of qemu-img: QEMU_TEST_QEMU_IMG, the build's, or PATH's; skip without."""
    built = BUILD_DIR / "qemu-img"
    found = os.environ.get("QEMU_TEST_QEMU_IMG") or (str(built) if built.exists() else None)
    found = found or which("qemu-img")
    if found is None:
        test.skipTest("qemu-img is not installed, which makes the disk images of this test")
    return found


def wait_for_console_pattern(
    test: QemuSystemTest,
    success_message: str,
    failure_message: str | None = None,
    vm: QEMUMachine | None = None,
) -> bytes:
    """Read the console until `success_message`; return what was read.

    Fails the test, quoting the line, when `failure_message` comes first or the console ends.
    """
    return _Conversation(test, vm, success_message, failure_message).read()


def exec_command(test: QemuSystemTest, command: str, vm: QEMUMachine | None = None) -> None:
    """Type `command` and Return on the console."""
    (vm or test.vm).console_socket.sendall(f"{command}\r".encode())


def exec_command_and_wait_for_pattern(
    test: QemuSystemTest,
    command: str,
    success_message: str,
    failure_message: str | None = None,
    vm: QEMUMachine | None = None,
) -> bytes:
    """Type `command`, then do as `wait_for_console_pattern` does."""
    exec_command(test, command, vm)
    return wait_for_console_pattern(test, success_message, failure_message, vm)


def interrupt_interactive_console_until_pattern(
    test: QemuSystemTest,
    success_message: str,
    failure_message: str | None = None,
    interrupt_string: str = "\r",
    vm: QEMUMachine | None = None,
) -> bytes:
    """Do as `wait_for_console_pattern` does, typing `interrupt_string` before every line.

    Stops a boot loader that waits for a key.
    """
    conversation = _Conversation(test, vm, success_message, failure_message)
    return conversation.read(interrupt_string.encode())


class _Conversation:
    """Reading a console until one of two texts comes."""

    def __init__(
        self,
        test: QemuSystemTest,
        vm: QEMUMachine | None,
        success: str,
        failure: str | None,
    ) -> None:
        self._test = test
        self._console: socket.socket = (vm or test.vm).console_socket
        self._success = success.encode()
        self._failure = failure.encode() if failure else None
        self._log = logging.getLogger("console")
        self._line = bytearray()
        self._read = bytearray()

    def read(self, typed_before_lines: bytes = b"") -> bytes:
        """Read until the success; fail the test at the failure or the end."""
        log = f"waiting for {self._success!r}"
        self._log.debug(log + (f", not {self._failure!r}" if self._failure else ""))
        while True:
            if typed_before_lines and not self._line:
                self._type(typed_before_lines)
            self._take_segment()
            if self._success in self._line:
                self._log_line()
                return bytes(self._read)
            if self._failure is not None and self._failure in self._line:
                self._fail_quoting()
            if self._line.endswith(b"\n"):
                self._log_line()

    def _type(self, text: bytes) -> None:
        try:
            self._console.sendall(text)
        except BrokenPipeError:  # the end; reading tells it
            return

    def _take_segment(self) -> None:
        """Move bytes from the console to the line: up to its end, or to a match."""
        ahead = self._console.recv(_CHUNK, socket.MSG_PEEK)
        if not ahead:
            self._log_line()
            self._test.fail(
                f"The console ended while waiting for {self._success.decode()!r}. Its last "
                f"lines were: {_last_lines(self._read)}"
            )
        taken = self._console.recv(self._useful(ahead))
        self._line += taken
        self._read += taken

    def _useful(self, ahead: bytes) -> int:
        """Return how many of the bytes `ahead` to take: to the first match or line end."""
        known = len(self._line)
        line = bytes(self._line) + ahead
        ends = [line.find(b"\n", known) + 1]
        for text in filter(None, (self._success, self._failure)):
            # A match that began in what was taken before ends in what is ahead.
            start = line.find(text, max(0, known - len(text) + 1))
            ends.append(start + len(text) if start >= 0 else 0)
        return min((end for end in ends if end > 0), default=len(line)) - known

    def _fail_quoting(self) -> None:
        """Fail with the line that tells the failure, read to its end if that comes soon."""
        while not self._line.endswith(b"\n"):
            if not select.select([self._console], [], [], _REST_OF_LINE_SECONDS)[0]:
                break
            byte = self._console.recv(1)
            if not byte:
                break
            self._line += byte
        quoted = _text(self._line)
        self._log_line()
        assert self._failure is not None
        self._test.fail(
            f"The guest printed {self._failure.decode()!r} while waiting for "
            f"{self._success.decode()!r}: {quoted}"
        )

    def _log_line(self) -> None:
        if self._line:
            self._log.debug(_text(self._line))
        self._line.clear()


def _text(data: bytes | bytearray) -> str:
    return data.decode(errors="replace").rstrip()


def _last_lines(data: bytes | bytearray) -> str:
    return " | ".join(_text(data).splitlines()[-3:]) or "none"
