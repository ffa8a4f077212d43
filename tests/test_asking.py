"""Programs that are asked one thing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from retrograde.asking import ask
from tests.command import SECONDS

ASKED = (
    "import os, pathlib, signal, sys\n"
    "os.kill(os.getppid(), signal.SIGKILL)\n"
    "heard = pathlib.Path(sys.argv[1])\n"
    "heard.with_suffix('.new').write_text(sys.stdin.read())\n"
    "heard.with_suffix('.new').rename(heard)\n"
)
ASKING = (
    "import sys\n"
    "from retrograde.asking import ask\n"
    "ask([sys.executable, '-c', *sys.argv[1:]], 'testing', seconds=60, stdin='x' * 1_000_000)"
)


def test_it_hears_all_though_we_are_killed(tmp_path: Path) -> None:
    """A QEMU that was not told to quit would stay for ever."""
    heard = tmp_path / "heard"
    done = subprocess.run([sys.executable, "-c", ASKING, ASKED, heard])
    assert done.returncode == -9
    until = time.monotonic() + SECONDS
    while not heard.exists():
        assert time.monotonic() < until, "it hears nothing"
        time.sleep(0.01)
    assert heard.read_text() == "x" * 1_000_000  # more than a pipe holds


def test_it_hears_what_it_is_told() -> None:
    assert ask(["cat"], "testing", seconds=60, stdin="one\ntwo").stdout == "one\ntwo"
    assert ask(["cat"], "testing", seconds=60).stdout == ""
