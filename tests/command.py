"""Run the command line as people do, in a process of its own, and judge what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 120.0
"""No command of these tests takes a tenth of it; a hang fails here with its output."""

RETROGRADE = (sys.executable, "-c", "from retrograde.cli.main import main; main()")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    stdout: bytes
    stderr: str

    def json(self) -> Any:
        """Return the document on stdout of a command that went well."""
        assert self.status == 0, self.stderr
        return json.loads(self.stdout)


def retrograde(
    *words: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    program: Sequence[str] = RETROGRADE,
    seconds: float = SECONDS,
) -> Done:
    """Run `retrograde WORDS` to its end; `prefix` is put before it (`unshare`, say)."""
    done = subprocess.run(
        [*prefix, *program, *map(str, words)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        timeout=seconds,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


def start(
    *words: str | Path, program: Sequence[str] = RETROGRADE, **kwargs: Any
) -> subprocess.Popen[bytes]:
    """Start `retrograde WORDS` and leave it running, in a process group of its own."""
    return subprocess.Popen([*program, *map(str, words)], start_new_session=True, **kwargs)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait until `condition` holds; fail with what `process` said when it ends first."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


def assert_error(done: Done, status: int, *words: str) -> None:
    """Check an error: its exit code, what happened, what to do, and no traceback.

    `words` are what must be said, anywhere in it.
    """
    assert done.status == status, (done.status, done.stderr)
    assert "Traceback" not in done.stderr
    # On a busy machine anything may take so long that it says what it waits for.
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    said = [line for line in lines if "warning: " not in line]
    assert len(said) >= 2, f"no remedy: {said}"
    what, remedy = said[:2]
    assert what.startswith("retrograde: "), what
    assert what.endswith("."), what
    assert len(what) < 400, what
    assert len(remedy) > 10, remedy
    for word in words:
        assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"
