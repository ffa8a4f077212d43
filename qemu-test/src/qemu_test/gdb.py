"""gdb as a test drives it: a command line in, what gdb said out.

pygdbmi parses the records. Its controller is not used: it returns after a pause in gdb's
output, which says nothing about the machine, so a command that moves it may seem done while
it still runs. Here a command is done when gdb says so: its result has come, the machine has
stopped if that result was `running`, and gdb prompts again (GDB manual, "GDB/MI Output
Syntax").
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import time
from typing import Any, ClassVar

from pygdbmi.constants import GdbTimeoutError
from pygdbmi.gdbmiparser import parse_response

from .child import tied

_READ = 1 << 16
_PROMPT = "done"
"""What pygdbmi calls gdb's prompt."""
_DONE = ("done", "connected", "error", "exit")
_STOPPED = ("stopped", "thread-group-exited")
"""The latter alone when the connection breaks while the machine moves."""

_PATIENCE = ("-l", "3600")
"""Seconds gdb waits for an answer of QEMU's stub; of its own accord it gives up after 2, and
takes what comes later for the answer to its next question."""

Response = list[dict[str, Any]]


class GDB:
    """One gdb. `cli` runs a command, the `get_` methods look at what the last one gave."""

    TimeoutError = GdbTimeoutError

    byte_order: ClassVar[str] = "little"
    """That of the QEMU under test at its reset. QEMU's stub does not tell it, and a gdb for
    all architectures takes the wrong one for some; a test may `set endian` otherwise."""

    def __init__(
        self, gdb_path: str, echo: bool = True, suffix: str = "# ", prompt: str = "$ "
    ) -> None:
        """Start the program `gdb_path`; with `echo`, print what is said on stdout.

        Raises FileNotFoundError without gdb.
        """
        if shutil.which(gdb_path) is None:
            raise FileNotFoundError(
                f"{gdb_path!r} is not a program: set QEMU_TEST_GDB to the path of gdb."
            )
        self.echo = echo
        self.suffix = suffix
        self.prompt = prompt
        self.response: Response = []
        self.cmd_output: list[str] = []
        self._unread = bytearray()
        self._process = subprocess.Popen(
            tied([gdb_path, "-q", "--interpreter=mi2", *_PATIENCE, *self._endian_option()]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at our terminal is not for gdb
        )
        self._greeting = True

    def cli(self, cmd: str, timeout: float = 32.0) -> GDB:
        """Run a command of gdb and wait until it is done; return this object.

        Raises GDB.TimeoutError when gdb says nothing for `timeout` seconds before that.
        """
        assert self._process.stdin is not None
        if self._greeting:
            self._until_prompt("starting", timeout)
            self._greeting = False
        self._process.stdin.write(f"{cmd}\n".encode())
        self._process.stdin.flush()
        self.response = self._until_done(cmd, timeout)
        self.cmd_output = self.get_payload(self.response, "console")
        if self.echo:
            lines = [f"{self.prompt}{cmd}\n", *self.cmd_output]
            sys.stdout.write("".join(self.suffix + line for line in lines))
        return self

    def get_payload(self, response: Response, kind: str) -> list[str]:
        """Return the text of the records of a kind (`console`, `log`), as lines."""
        text = [str(record["payload"]) for record in response if record["type"] == kind]
        # Some begin with the end of the line before.
        return "".join(part.removeprefix("\n") for part in text).splitlines(keepends=True)

    def get_console(self) -> str:
        """Return what the last command printed."""
        return "".join(self.cmd_output)

    def get_log(self) -> str:
        """Return what gdb logged during the last command: its errors, debugging output."""
        return "".join(self.get_payload(self.response, "log"))

    def get_addr(self) -> int | None:
        """Return the first hexadecimal number the last command printed; None without one."""
        match = re.search(r"0x[0-9A-Fa-f]+", self.get_console())
        return int(match[0], 16) if match else None

    def exit(self) -> None:
        """End gdb. May be repeated."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it did not read is lost
                pipe.close()

    @classmethod
    def _endian_option(cls) -> list[str]:
        return ["-ex", "set endian big"] if cls.byte_order == "big" else []

    def _until_done(self, cmd: str, timeout: float) -> Response:
        """Read records until `cmd` is done, and gdb prompts."""
        response: Response = []
        done = moving = False
        for record in iter(lambda: self._record(cmd, timeout), None):
            if record["type"] != _PROMPT:
                response.append(record)
            elif done:
                break
            if record["type"] == "result":
                # After `^running` it moves, unless the command ended with "&".
                done = record["message"] in _DONE or cmd.rstrip().endswith("&")
                moving = not done
            elif moving and record["message"] in _STOPPED:
                done = True
        return response

    def _until_prompt(self, doing: str, timeout: float) -> None:
        for record in iter(lambda: self._record(doing, timeout), None):
            if record["type"] == _PROMPT:
                break

    def _record(self, cmd: str, timeout: float) -> dict[str, Any] | None:
        """Return the next record; None when gdb has ended."""
        assert self._process.stdout is not None
        until = time.monotonic() + timeout
        while b"\n" not in self._unread:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise self.TimeoutError(f"gdb said nothing for {timeout:g} s during {cmd!r}")
            data = os.read(self._process.stdout.fileno(), _READ)
            if not data:
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        record: dict[str, Any] = parse_response(line.decode(errors="replace"))
        return record
