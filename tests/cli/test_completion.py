"""The TAB key in bash, zsh and fish, with the scripts that are in the wheel."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SHARE = ROOT / "share"
SECONDS = 60.0
"""A TAB takes a second on a busy machine; this only ends what hangs."""

COMPLETED = {
    "retrograde unp": "unpack",
    "retrograde --vers": "--version",
    "retrograde query lock.retro SQL --format parq": "parquet",
    # A recording is a folder; whatever else is on the disk is a file.
    "retrograde replay --json lo": "lock.retro/",
    "retrograde diff lock.retro lo": "lock.retro/",
    "retrograde unpack los": "lost.retro.tar.zst",
    "retrograde debug lock.retro --symbols vm": "vmlinux",
    "retrograde record -o new.retro -- -m 256 -kernel bz": "bzImage",
}

SETUP = {
    "bash": f"""
bind -x '"\\C-t": echo "<<$READLINE_LINE>>"'
. '{SHARE}/bash-completion/completions/retrograde'
""",
    "zsh": f"""
shown() {{ print -r -- "<<$BUFFER>>" }}; zle -N shown; bindkey '^T' shown
fpath=('{SHARE}/zsh/site-functions' $fpath)
autoload -U compinit; compinit -u -D
""",
}
"""What is typed first. After it ^T shows the line as it stands then."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one folder in it, as a recording is, and files."""
    (tmp_path / "lock.retro").mkdir()
    for name in ("loader", "lost.retro.tar.zst", "vmlinux", "bzImage"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(("shell", "options"), [("bash", ("--norc", "-i")), ("zsh", ("-f", "-i"))])
def test_tab(shell: str, options: tuple[str, ...], folder: Path) -> None:
    with typing(require(shell), options, folder) as keys:
        type_keys(keys, SETUP[shell] + "printf '<<%s>>' ready\n")
        assert shown(keys) == "ready"
        for line, word in COMPLETED.items():
            type_keys(keys, f"\x15{line}\t\x14")
            assert shown(keys).rstrip() == f"{line.rpartition(' ')[0]} {word}"


def test_tab_in_fish(folder: Path) -> None:
    scripts = SHARE / "fish" / "vendor_completions.d"
    asked = "".join(f"complete -C {line!r}\necho ---\n" for line in COMPLETED)
    done = subprocess.run(
        [require("fish"), "--no-config", "-c", f"source '{scripts}/retrograde.fish'\n{asked}"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    answers = [
        [line.split("\t")[0] for line in answer.splitlines()]
        for answer in done.stdout.split("---\n")[:-1]
    ]
    assert answers == [[word] for word in COMPLETED.values()], done.stderr


def require(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


def environment() -> dict[str, str]:
    programs = Path(sys.executable).parent
    assert (programs / "retrograde").exists()
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TERM": "dumb",
        "HISTFILE": "",
    }


@contextlib.contextmanager
def typing(shell: str, options: tuple[str, ...], folder: Path) -> Iterator[int]:
    """A shell at a terminal; yields that terminal's other end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [shell, *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment(),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def type_keys(terminal: int, keys: str) -> None:
    os.write(terminal, keys.encode())


def shown(terminal: int) -> str:
    """Return what is shown next between << and >>; what is typed has a $ or % there."""
    seen = ""
    while not (found := re.search(r"<<([^$%>]*)>>", seen)):
        assert select.select([terminal], [], [], SECONDS)[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")
    return found[1]
