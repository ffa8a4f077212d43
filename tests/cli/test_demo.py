"""`retrograde demo`: the parts, and that what is shown can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import reference_guest
from tests.command import SECONDS, Done, retrograde
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]

COMMAND = re.compile(r"^\$ (retrograde .*(?:\\\n.*|\n {4}.*)*)", re.MULTILINE)
WITHOUT_DUCKDB = "raise ModuleNotFoundError('duckdb')\n"


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """Where the demo keeps recordings, which is nowhere else."""
    return {"XDG_STATE_HOME": str(tmp_path), "COLUMNS": "80"}


@pytest.fixture
def kernel(probe: None) -> None:
    """Skips where Debian's kernel cannot be had."""
    del probe
    try:
        reference_guest()
    except EnvironmentLacks as error:
        pytest.skip(str(error))


def commands(shown: str) -> list[str]:
    return [found.replace("\\\n", " ") for found in COMMAND.findall(shown)]


def masked(text: str) -> list[str]:
    return re.sub(r"0x[0-9a-f]+", "N", re.sub(r"[0-9_]{5,}", "N", text)).split()


def folder_of(shown: str) -> Path:
    found = re.search(r"^\$ cd (.*)$", shown, re.MULTILINE)
    assert found
    return Path(*shlex.split(found[1]))


def typed(command: str, folder: Path) -> Done:
    words = shlex.split(command)[1:]
    if words[0] == "debug":
        words += ["--", "-batch", "-ex", "retro when"]
    return retrograde(*words, cwd=folder)


def test_the_built_in_guest(state: dict[str, str]) -> None:
    done = retrograde("demo", "--tiny", environment=state)
    assert done.status == 0, done.stderr
    shown = done.stdout.decode()
    assert "the console is the same" in shown
    assert re.search(r"10 steps back and forth, then from [0-9_]+ back to pc 0x", shown)
    again = retrograde("demo", "--tiny", environment=state)
    assert "tiny.retro is used again" in again.stderr
    for command in commands(again.stdout.decode()):
        assert typed(command, folder_of(shown)).status == 0, command


@pytest.mark.slow
@pytest.mark.usefixtures("kernel")
def test_all_of_it(state: dict[str, str]) -> None:
    """What each part shows is what its command shows when it is typed again."""
    done = retrograde("demo", environment=state, seconds=10 * SECONDS)
    assert done.status == 0, done.stderr
    shown = done.stdout.decode()
    parts = re.split(r"^\d\. (.*)$", shown, flags=re.MULTILINE)[1:]
    assert len(parts) == 2 * 5
    answers = 0
    for command in commands("\n".join(parts[1::2])):
        again = typed(command, folder_of(shown))
        assert again.status == (1 if " diff " in command else 0), again.stderr
        if " debug " in command:
            where = re.search(rb"at ([0-9_]+) of", again.stdout)
            assert where
            assert where[1].decode() in shown or where[1].decode() in command
        else:
            assert again.stdout.decode().strip() in shown
            answers += 1
    assert answers == 3
    assert "copy_process" in parts[5]
    assert "get_ramdisk_size" in parts[9]
    check_readme(shown)


def check_readme(shown: str) -> None:
    """README shows what the demo does: the same parts with the same commands."""
    text = (ROOT / "README.md").read_text()
    (told,) = re.findall(r"```text\n(1\. .*?)```", text, re.DOTALL)
    theirs, ours = (re.findall(r"^\d\. .*$", each, re.MULTILINE) for each in (told, shown))
    assert theirs == ours
    part = shown[shown.index("1. ") :]
    assert [masked(command) for command in commands(told)] == [
        masked(command) for command in commands(part)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("kernel")
def test_without_the_index(state: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text(WITHOUT_DUCKDB)
    done = retrograde("demo", environment={**state, "PYTHONPATH": with_first(tmp_path)})
    assert done.status == 0, done.stderr
    shown = done.stdout.decode()
    assert "the console is the same" in shown
    assert "There is more to see." in shown
    assert "pip install 'retrograde[index]'" in shown


def with_first(folder: Path) -> str:
    return f"{folder}:{ROOT / 'src'}"
