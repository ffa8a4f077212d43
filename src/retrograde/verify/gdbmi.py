"""A real gdb driven over its machine interface, one command at a time.

Waits for what a command promises (`^done`, or `*stopped` after `^running`), never for
silence: pygdbmi returns after a pause in the output, which says nothing about the
machine (GDB manual, "GDB/MI Async Records").
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retrograde.errors import EnvironmentLacks, QemuTimeout, RetrogradeError

ANSWER_SECONDS = 60.0
_LOOK_SECONDS = 1.0


class GdbFailed(RetrogradeError):
    """gdb answered a command with an error; `what` quotes it."""

    exit_code = 4


class GdbMi:
    """One gdb process. A context manager: leaving it ends gdb."""

    def __init__(self, program: str = "gdb") -> None:
        """Start gdb; raises EnvironmentLacks without gdb or pygdbmi."""
        try:
            from pygdbmi.gdbcontroller import GdbController
        except ImportError as error:
            raise EnvironmentLacks(
                "pygdbmi is not installed.", "Install it: pip install 'retrograde[verify]'"
            ) from error
        path = shutil.which(program)
        if path is None:
            raise EnvironmentLacks(
                f"{program} is not installed.",
                "Install it: apt-get install gdb (gdb-multiarch for foreign guests)",
            )
        self._gdb = GdbController([path, "-q", "-nx", "--interpreter=mi3"])
        self._pending: list[dict[str, Any]] = []
        self.command("set confirm off")
        self.command("set pagination off")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._gdb.gdb_process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        self._gdb.exit()

    def command(self, line: str, seconds: float = ANSWER_SECONDS) -> str:
        """Run a command that does not move the machine; return its console and log text.

        Raises GdbFailed when gdb answers with an error.
        """
        self._pending.clear()
        self._send(line)
        return self._collect("result", ("done", "connected", "exit"), line, seconds)

    def move(self, line: str, seconds: float) -> str:
        """Run a command that moves the machine, wait until it stopped; return gdb's text."""
        self._pending.clear()
        self._send(line)
        text = self._collect("result", ("running", "done"), line, ANSWER_SECONDS)
        return text + self._collect("notify", ("stopped",), line, seconds)

    def connect(self, socket: Path, seconds: float = ANSWER_SECONDS) -> str:
        """`target remote`; return the log of the packets exchanged while connecting."""
        self.command("set debug remote 1")
        self._pending.clear()
        self._send(f"target remote {socket}")
        log = self._collect("result", ("done", "connected", "running"), "target remote", seconds)
        self.command("set debug remote 0")
        return log

    def pc(self) -> int:
        """Return the program counter as gdb prints it."""
        text = self.command("print/x $pc")
        match = re.search(r"0x([0-9a-f]+)", text)
        if not match:
            raise GdbFailed(f"gdb printed no program counter: {text.strip()!r}.")
        return int(match[1], 16)

    def _send(self, line: str) -> None:
        quoted = line.replace("\\", "\\\\").replace('"', '\\"')
        self._gdb.write(f'-interpreter-exec console "{quoted}"', read_response=False)

    def _collect(self, kind: str, messages: tuple[str, ...], line: str, seconds: float) -> str:
        """Read records until one of `kind` and `messages`; return the text before it."""
        until = time.monotonic() + seconds
        text: list[str] = []
        while True:
            for record in self._records(until, line, seconds):
                if record["type"] in ("console", "log", "target"):
                    text.append(str(record["payload"]))
                elif record["type"] == "result" and record["message"] == "error":
                    raise GdbFailed(f"gdb refused `{line}`: {record['payload']['msg']}")
                elif record["type"] == kind and record["message"] in messages:
                    return "".join(text)

    def _records(self, until: float, line: str, seconds: float) -> Any:
        """Yield records one by one, leaving those not consumed for the next call."""
        while not self._pending:
            if time.monotonic() > until:
                raise QemuTimeout(
                    f"gdb did not finish `{line}` within {seconds:g} s.",
                    "`retrograde doctor` tells which defects of this QEMU are known.",
                )
            self._pending = self._gdb.get_gdb_response(_LOOK_SECONDS, raise_error_on_timeout=False)
        while self._pending:
            yield self._pending.pop(0)
