"""Odd surroundings: streams that are closed or not of Unicode, no home, limits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.build import build_probe
from retrograde.machine.userfolder import user_folder
from tests.command import assert_error, retrograde
from tests.conftest import Record

HAS_GDB = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


def closing(redirections: str) -> tuple[str, ...]:
    """Return what, put before a command, closes streams as a shell does."""
    return ("sh", "-c", f'exec "$@" {redirections}', "sh")


@pytest.mark.qemu
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(recorded: Record, closed: str) -> None:
    recording = recorded()
    done = retrograde("replay", recording.path, prefix=closing(closed))
    assert done.status == 0, done.stderr
    if closed in ("2>&-", "<&-"):
        assert done.stdout == recording.console_path.read_bytes()


def test_an_error_that_nobody_can_be_told_of() -> None:
    assert retrograde("info", "/no/such.retro", prefix=closing("2>&-")).status == 2
    assert retrograde("info", "/no/such.retro", prefix=closing("2>/dev/full")).status == 2
    assert retrograde("no-such-command", prefix=closing("2>/dev/full")).status == 2


@pytest.mark.qemu
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_is_not_of_unicode(recorded: Record, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "日本.retro"
    path.symlink_to(recorded().path)
    environment = {"PYTHONIOENCODING": encoding}
    done = retrograde("info", path, environment=environment)
    assert done.status == 0, done.stderr
    shown = "日本" if encoding == "utf-8" else "\\u65e5\\u672c"
    assert shown in done.stdout.decode(encoding)
    assert retrograde("info", "--json", path, environment=environment).status == 0


@pytest.mark.qemu
@pytest.mark.gdb
@HAS_GDB
def test_no_place_for_the_probe(recorded: Record) -> None:
    """As without a compiler: debug goes on without, what needs it says what to do."""
    nowhere = {"XDG_CACHE_HOME": "/proc"}
    words = ("debug", recorded().path, "--", "-nx", "-batch", "-ex", "p/x $pc")
    done = retrograde(*words, environment=nowhere)
    assert done.status == 0, done.stderr
    assert "The probe cannot be kept in /proc/retrograde" in done.stderr
    assert b"$1 = 0x" in done.stdout
    assert_error(retrograde("index", recorded().path, environment=nowhere), 3, "XDG_CACHE_HOME")


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `docker run --user 54321`."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(EnvironmentLacks, match="no home") as caught:
        build_probe(4)
    assert "XDG_CACHE_HOME" in caught.value.remedy
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert user_folder("XDG_CACHE_HOME", ".cache") == Path("/elsewhere/retrograde")


@pytest.mark.qemu
@pytest.mark.gdb
@HAS_GDB
@pytest.mark.parametrize("command", ["verify", "debug"])
def test_a_tmpdir_too_long_for_a_socket(recorded: Record, tmp_path: Path, command: str) -> None:
    long = tmp_path / (100 * "x")
    long.mkdir()
    done = retrograde(command, recorded().path, environment={"TMPDIR": str(long)})
    assert_error(done, 3, "too long a path", "TMPDIR")
    assert list(long.iterdir()) == []


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
@pytest.mark.parametrize("files", [10, 12, 14, 17, 20, 24])
def test_too_few_descriptors(recorded: Record, files: int) -> None:
    done = retrograde(
        *("replay", "--to", "50%", recorded().path), prefix=("prlimit", f"--nofile={files}")
    )
    if done.status:
        assert_error(done, 3, "ulimit -n")


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
@pytest.mark.parametrize("megabytes", [112, 128, 144, 160])
def test_too_little_memory(recorded: Record, megabytes: int) -> None:
    """OpenBLAS would end us by a SIGINT of its own, as if Ctrl-C had been pressed."""
    limit = ("prlimit", f"--as={megabytes << 20}")
    done = retrograde("query", "--json", recorded().path, "SELECT 1", prefix=limit)
    assert_error(done, 3, "emory")
