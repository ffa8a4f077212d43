"""How a process that replays tells what went wrong, and how it is ended."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import msgspec
import pytest

from retrograde.errors import EnvironmentLacks, InternalError, RetrogradeError
from retrograde.index.tables import build, worker

FAILING = (
    "import sys\n"
    "from retrograde.index.tables import worker\n"
    "async def serve(path, program, answer):\n"
    "    raise {}\n"
    "worker._serve = serve\n"
    "sys.argv[1:] = ['x.retro', 'qemu']\n"
    "worker.main()"
)

IGNORING = "import signal, sys; print(flush=True); signal.pause()"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("MemoryError()", EnvironmentLacks, "Memory ran out"),
        ("OSError(24, 'Too many open files')", EnvironmentLacks, "ulimit -n"),
        ("KeyError('x')", InternalError, "KeyError"),
    ],
)
def test_any_error_is_told_in_our_words(
    error: str, kind: type[RetrogradeError], words: str
) -> None:
    """Its traceback would be all that is seen, and its end taken for a kill."""
    command = [sys.executable, "-c", FAILING.format(error)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert done.stderr == b""
    failure = msgspec.json.decode(done.stdout, type=worker.Failure).error()
    assert type(failure) is kind
    assert words in str(failure)


async def test_one_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "EXIT_SECONDS", 0.1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IGNORING),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    await process.stdout.readline()
    await build._end(process)
    assert process.returncode == -9
