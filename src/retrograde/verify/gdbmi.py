"""A real gdb driven over its machine interface, one command at a time.

Waits for what a command promises (`^done`, or `*stopped` after `^running`; GDB manual,
"GDB/MI Async Records"), never for silence. pygdbmi parses the records; its own
controller is not used because it polls, and returns after a pause in the output, which
says nothing about the machine.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from pygdbmi.gdbmiparser import parse_response

from retrograde.asking import how_it_ended
from retrograde.errors import EnvironmentLacks, QemuTimeout, RetrogradeError
from retrograde.machine.gdbprogram import NOT_ITS_SCRIPTS, PATIENCE

ANSWER_SECONDS = 60.0


class GdbFailed(RetrogradeError):
    """gdb answered a command with an error; `what` quotes it."""

    exit_code = 4


class GdbDied(GdbFailed):
    """gdb ended when it should not have."""


class GdbMi:
    """One gdb process. A context manager: leaving it ends gdb."""

    def __init__(self, program: str = "gdb") -> None:
        """Start gdb; raises EnvironmentLacks when it is not installed."""
        path = shutil.which(program)
        if path is None:
            raise EnvironmentLacks(
                f"{program} is not installed.",
                "Install it: apt-get install gdb (gdb-multiarch for foreign guests)",
            )
        self._process = subprocess.Popen(
            [path, "-q", "-nx", "--interpreter=mi3", *PATIENCE, *NOT_ITS_SCRIPTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._unread = bytearray()
        try:
            self.command("set confirm off")
            self.command("set pagination off")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.communicate()

    def kill(self) -> None:
        """End gdb at once: a command that another thread waits for raises GdbDied."""
        self._process.kill()

    def command(self, line: str, seconds: float = ANSWER_SECONDS) -> str:
        """Run a command that does not move the machine; return its console and log text.

        Raises GdbFailed when gdb answers with an error.
        """
        self._send(line)
        return self._collect("result", ("done", "connected", "exit"), line, seconds)

    def move(self, line: str, seconds: float) -> str:
        """Run a command that moves the machine, wait until it stopped; return gdb's text."""
        self._send(line)
        text = self._collect("result", ("running", "done"), line, ANSWER_SECONDS)
        return text + self._collect("notify", ("stopped",), line, seconds)

    def connect(self, socket: Path, seconds: float = ANSWER_SECONDS) -> str:
        """`target remote`; return the log of the packets exchanged while connecting."""
        self.command("set debug remote 1")
        self._send(f"target remote {socket}")
        log = self._collect("result", ("done", "connected", "running"), "target remote", seconds)
        self.command("set debug remote 0")
        return log

    def register(self, name: str) -> int:
        """Return the value of an integer register as gdb prints it."""
        text = self.command(f"print/x ${name}")
        match = re.search(r"0x([0-9a-f]+)", text)
        if not match:
            raise GdbFailed(f"gdb printed no value of ${name}: {text.strip()!r}.")
        return int(match[1], 16)

    def _send(self, line: str) -> None:
        quoted = line.replace("\\", "\\\\").replace('"', '\\"')
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f'-interpreter-exec console "{quoted}"\n'.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._gone(line) from error

    def _gone(self, line: str) -> GdbDied:
        """Make the error that says gdb ended while we waited for it to do `line`."""
        how = how_it_ended(self._process.wait())
        return GdbDied(f"gdb {how} while doing `{line}`.", "Start again, or try another --gdb.")

    def _collect(self, kind: str, messages: tuple[str, ...], line: str, seconds: float) -> str:
        """Read records until one of `kind` and `messages`; return the text before it."""
        until = time.monotonic() + seconds
        text: list[str] = []
        while True:
            record = self._record(until, line, seconds)
            if record["type"] in ("console", "log", "target"):
                text.append(str(record["payload"]))
            elif record["type"] == "result" and record["message"] == "error":
                raise GdbFailed(f"gdb refused `{line}`: {record['payload']['msg']}")
            elif record["type"] == kind and record["message"] in messages:
                return "".join(text)

    def _record(self, until: float, line: str, seconds: float) -> dict[str, Any]:
        """Read the next record; raise QemuTimeout when none comes in time."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        waiting = select.poll()  # select takes no descriptor above 1023
        waiting.register(fd, select.POLLIN)
        while b"\n" not in self._unread:
            if not waiting.poll(1000 * max(0.0, until - time.monotonic())):
                raise QemuTimeout(
                    f"gdb did not finish `{line}` within {seconds:g} s.",
                    "`retrograde doctor` tells which defects of this QEMU are known.",
                )
            data = os.read(fd, 1 << 16)
            if not data:
                raise self._gone(line)
            self._unread += data
        record, _, rest = self._unread.partition(b"\n")
        self._unread = rest
        parsed: dict[str, Any] = parse_response(record.decode(errors="replace"))
        return parsed
