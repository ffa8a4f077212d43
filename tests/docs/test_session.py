"""The README's session is what `examples/panic/session.py` shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import reference_guest

ROOT = Path(__file__).parents[2]
SESSION = ROOT / "examples" / "panic" / "session.py"


def readme():
    """Return the README's first session."""
    return re.search(r"```text\n(\$ grep.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)[1]


def masked(text):
    """Return `text` without what differs from machine to machine and run to run."""
    text = re.sub(r"0x[0-9a-f]+", "0x", re.sub(r"[0-9_]{5,}", "N", text))
    text = re.sub(r"\[ *\d+\.\w+\]|sp:\w+", "", text)
    return re.sub(r"<jobs\+\d+>", "<jobs>", text).split()


def test_it_types_what_the_readme_shows():
    typed = re.findall(r"^\(gdb [0-9_]+\) (.+)$", readme(), re.MULTILINE)
    source = SESSION.read_text()
    commands = re.search(r"COMMANDS = \((.*?)^\)", source, re.DOTALL | re.MULTILINE)[1]
    assert typed == re.findall(r'"(.*)"', commands)


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.gdb
def test_it_shows_what_the_readme_shows(tmp_path):
    try:
        reference_guest()
    except EnvironmentLacks as error:
        pytest.skip(str(error))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shown = subprocess.run(
        [sys.executable, SESSION, tmp_path],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert masked(shown.stdout) == masked(readme())
