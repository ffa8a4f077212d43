"""The processes of one run: started with a mark, found by it, ended when they outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.command import RETROGRADE, Done
from tests.faults.commands import Command
from tests.faults.place import Place

MARK = "RETROGRADE_FAULT_RUN"
"""An environment variable that all processes of one run inherit."""

HUNG = 1000
"""In place of the exit code of a command that did not end by its deadline."""

DEADLINE = 150.0
"""Seconds a disturbed command may take; none takes a tenth of it undisturbed."""

PROMPT_SECONDS = 5.0
"""A killed process may take this long to be gone: the kernel frees its memory first."""

ROLES: Mapping[str, Callable[[str, bytes], bool]] = {
    "qemu": lambda name, words: name.startswith("qemu-system") and b"rr=re" in words,
    "gdb": lambda name, words: name == "gdb",
    "worker": lambda name, words: b"retrograde.index.tables.worker" in words,
}
"""How the processes of a command are told apart: by their name and command line."""


@dataclass(frozen=True)
class Setting:
    """What a command is run with: environment, limits set in the child, and standard output."""

    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[tuple[int, int]] = ()
    stdout: str = ""


class Running:
    """A command that runs, as a context manager; leaving it ends all of its processes."""

    def __init__(self, command: Command, place: Place, setting: Setting) -> None:
        self.mark = uuid.uuid4().hex
        self._command, self._place = command, place
        self._environment = {
            **os.environ,
            "TMPDIR": str(place.tmp),
            MARK: self.mark,
            **setting.environment,
        }
        self._stdout = Path(setting.stdout) if setting.stdout else place.root / f"{self.mark}.out"
        self._stderr = place.root / f"{self.mark}.err"

        def limit() -> None:
            import resource

            for what, most in setting.limits:
                resource.setrlimit(what, (most, most))

        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*RETROGRADE, *map(str, command.words(place))],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=self._environment,
                start_new_session=True,
                preexec_fn=limit if setting.limits else None,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.end_all()

    def finish(self) -> Done:
        """Wait for the end of the command, and end it at the deadline."""
        heard: list[bytes] = []
        client = self._command.client
        talk = threading.Thread(target=lambda: heard.append(self._talk()) if client else None)
        talk.start()
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            status = HUNG
            self.process.kill()
            self.process.wait()
            self.end_all()
        talk.join()
        return Done(
            status,
            heard[0] if client else self._stdout.read_bytes() if self._stdout.is_file() else b"",
            self._stderr.read_bytes().decode(errors="replace"),
        )

    def find(self, role: str) -> list[int]:
        """Return the process ids of those in a role."""
        if role == "us":
            return [self.process.pid] if self.process.poll() is None else []
        matches = ROLES[role]
        found = []
        for pid in self.alive():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if matches(name, Path(f"/proc/{pid}/cmdline").read_bytes()):
                    found.append(pid)
        return found

    def heeds(self) -> bool:
        """Whether the command is told of signals: before that they end it as any program."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            return bool(caught >> (signal.SIGTERM - 1) & 1)
        return False

    def alive(self) -> list[int]:
        """Return the ids of all processes that inherited the mark and still run."""
        mark = f"{MARK}={self.mark}".encode()
        return [int(path.name) for path in Path("/proc").iterdir() if _has(path, mark)]

    def orphans(self) -> list[str]:
        """Return what does not go away by itself once the command has ended."""
        until = time.monotonic() + PROMPT_SECONDS
        while (found := self.alive()) and time.monotonic() < until:
            time.sleep(0.02)
        return [_named(pid) for pid in found]

    def end_all(self) -> None:
        """End whatever of this run still lives, and wait until it is gone."""
        while found := self.alive():
            for pid in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _talk(self) -> bytes:
        assert self._command.client
        return self._command.client(self._place, self.process, self._environment)


def _has(process: Path, mark: bytes) -> bool:
    if not process.name.isdecimal():
        return False
    try:
        # A zombie's environment is empty: it is gone but for its exit status.
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # ended meanwhile, or somebody else's
        return False


def _named(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        words = ""
    return f"{pid} {words[:80]}"
