"""A program that can change no file but those it was given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retrograde.machine import confine

pytestmark = pytest.mark.skipif(confine.version() == 0, reason="no Landlock in this kernel")


def run(script: str, *files: object) -> str:
    fds = [file.fileno() for file in files]  # type: ignore[attr-defined]
    numbers = ",".join(map(str, fds))
    words = [sys.executable, "-I", "-S", confine.__file__, numbers, "/bin/sh", "-c", script]
    return subprocess.run(words, pass_fds=fds, check=False, capture_output=True, text=True).stdout


def test_nothing_is_changed_but_what_was_given(tmp_path: Path) -> None:
    given, read, other = (tmp_path / name for name in ("given", "read", "other"))
    for path in (given, read, other):
        path.write_text("old")
    script = f"""
        echo new >{given} && echo given
        echo new >/dev/null && echo null
        echo new >{read} && echo read
        echo new >{other} && echo other
        rm {other} && echo removed
        mv {other} {given} && echo moved
        ln {other} {tmp_path}/link && echo linked
        mkdir {tmp_path}/folder && echo made
        cat {other}
    """
    with given.open("wb") as writable, read.open("rb") as readable:
        assert run(script, writable, readable).split() == ["given", "null", "old"]
    assert given.read_text() == "new\n"
    assert read.read_text() == other.read_text() == "old"
