"""A command on a terminal of its own, for tests of what people type and see."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.command import SECONDS


class Session:
    """A command on a terminal of its own, at which we type and read."""

    def __init__(self) -> None:
        self.keyboard, self.terminal = os.openpty()
        termios.tcsetwinsize(self.terminal, (30, 100))
        self.before = termios.tcgetattr(self.terminal)
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, *words: str | Path, program: Sequence[str], stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*program, *map(str, words)],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=stderr,
            preexec_fn=own_terminal,
        )
        return self.process

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def read_until(self, text: bytes) -> bytes:
        seen = b""
        while not seen.endswith(text):
            assert select.select([self.keyboard], [], [], SECONDS)[0], seen
            seen += os.read(self.keyboard, 1)
        return seen

    def end(self) -> tuple[int, str]:
        """Wait for the command's end; return its exit status and stderr."""
        assert self.process
        _, stderr = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, (stderr or b"").decode()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        os.close(self.keyboard)
        os.close(self.terminal)
