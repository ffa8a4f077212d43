"""SIGTERM and SIGHUP end every command as Ctrl-C does, and SIGKILL leaves nothing for long.

A command is sent its signal when it is seen to be at work: a QEMU of its own runs, or it
reads what we give it piece by piece. `record` and `serve` are told elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrograde.recording.archive import pack
from retrograde.recording.bundle import Recording
from tests.command import RETROGRADE, SECONDS, Done, assert_error, retrograde, start
from tests.conftest import Record
from tests.leftovers import drafts, folders, settled_qemus
from tests.system.test_endings import wait_for

pytestmark = pytest.mark.qemu

NUMBERS = [signal.SIGTERM, signal.SIGHUP]
FOREVER = "SELECT * FROM range(1_000_000_000_000)"
NEEDS_GDB = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


@pytest.fixture
def place() -> Iterator[Path]:
    """A TMPDIR for one test; gdb's socket must fit into its path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def run(*words: str | Path, place: Path) -> subprocess.Popen[bytes]:
    return start(
        *words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
    )


def ended(process: subprocess.Popen[bytes]) -> Done:
    stdout, stderr = process.communicate(timeout=SECONDS)
    return Done(process.returncode, stdout, stderr.decode())


def has_machine(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Tell whether a QEMU that runs a machine is a child of `process`."""

    def look() -> bool:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return any(b"rr=replay" in command_line(child) for child in children)

    return look


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


COMMANDS = [
    ("replay",),
    pytest.param(("verify", "--steps", "1000"), marks=NEEDS_GDB),
    pytest.param(("debug",), marks=NEEDS_GDB),
    ("index",),
    ("last-write",),
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_a_command_with_a_machine(
    command: tuple[str, ...],
    number: signal.Signals,
    copied: Callable[..., Path],
    place: Path,
) -> None:
    values = ("0x100000:8",) if command == ("last-write",) else ()
    process = run(*command, copied(), *values, place=place)
    wait_for(has_machine(process), process)
    process.send_signal(number)
    done = ended(process)
    assert done.status == 128 + number, done.stderr
    assert done.stderr.strip().splitlines()[-1] == f"retrograde: Ended by {number.name}."
    assert "Traceback" not in done.stderr
    assert folders(place) == []


@pytest.mark.parametrize("number", NUMBERS)
def test_a_query(recorded: Record, number: signal.Signals, place: Path) -> None:
    pytest.importorskip("duckdb")
    process = run("query", "--format", "csv", recorded().path, FOREVER, place=place)
    assert process.stdout
    assert process.stdout.read(1 << 20)
    process.send_signal(number)
    done = ended(process)
    assert done.status == 128 + number, done.stderr
    assert folders(place) == []


@pytest.fixture
def unpacking(recorded: Record, tmp_path: Path, place: Path) -> subprocess.Popen[bytes]:
    """`unpack` of a pipe of which half of an archive came; it has begun its folder."""
    pack(recorded(), tmp_path / "whole.tar.zst")
    data = (tmp_path / "whole.tar.zst").read_bytes()
    pipe = tmp_path / "pipe.tar.zst"
    os.mkfifo(pipe)
    process = run("unpack", pipe, "-o", tmp_path / "b.retro", place=place)
    writing = os.open(pipe, os.O_WRONLY)
    os.write(writing, data[: min(len(data) // 2, 1 << 15)])
    wait_for(lambda: drafts(tmp_path), process)
    process.writing = writing  # type: ignore[attr-defined] # kept open: the rest may yet come
    return process


@pytest.mark.parametrize("number", NUMBERS)
def test_unpack(unpacking: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals) -> None:
    unpacking.send_signal(number)
    assert ended(unpacking).status == 128 + number
    assert drafts(tmp_path) == []


def test_a_killed_unpack_is_no_hindrance(
    unpacking: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    words = ("unpack", tmp_path / "whole.tar.zst", "-o", tmp_path / "b.retro")
    assert_error(retrograde(*words), 2, "being made by another")
    unpacking.kill()
    ended(unpacking)
    assert len(drafts(tmp_path)) == 1
    assert retrograde(*words).status == 0
    assert drafts(tmp_path) == []
    Recording.open(tmp_path / "b.retro").check_digests()


PACKING = (
    "import retrograde.recording.archive as archive, sys\n"
    "add = archive._add\n"
    "def slow(tar, file, name):\n"
    "    add(tar, file, name)\n"
    "    print(name, flush=True)\n"
    "    sys.stdin.readline()\n"
    "archive._add = slow\n"
)
"""Makes `pack` wait for a line after each file."""


@pytest.fixture
def packing(recorded: Record, tmp_path: Path) -> subprocess.Popen[bytes]:
    """`pack` with one file packed."""
    program = (RETROGRADE[0], "-c", PACKING + RETROGRADE[-1])
    process = start(
        *("pack", recorded().path, "-o", tmp_path / "p.tar.zst"),
        program=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"manifest.json\n"
    return process


@pytest.mark.parametrize("number", NUMBERS)
def test_pack(packing: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals) -> None:
    packing.send_signal(number)
    assert ended(packing).status == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_killed_pack_is_no_hindrance(
    packing: subprocess.Popen[bytes], recorded: Record, tmp_path: Path
) -> None:
    words = ("pack", recorded().path, "-o", tmp_path / "p.tar.zst")
    assert_error(retrograde(*words), 2, "being made by another")
    packing.kill()
    ended(packing)
    assert len(drafts(tmp_path)) == 1
    assert retrograde(*words).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["p.tar.zst"]


@pytest.mark.gdb
@NEEDS_GDB
@pytest.mark.parametrize("command", [("debug",), ("verify", "--steps", "1000")])
def test_what_a_killed_command_left_goes_with_the_next(
    recorded: Record, command: tuple[str, ...], place: Path
) -> None:
    process = run(*command, recorded().path, place=place)
    wait_for(lambda: has_machine(process)() and list(place.glob("*/gdb")), process)
    other = {"TMPDIR": str(place)}
    assert retrograde("info", recorded().path, environment=other).status == 0
    assert len(folders(place)) == 1, "a living one's folder was taken"
    process.kill()
    ended(process)
    assert len(folders(place)) == 1
    assert retrograde("info", recorded().path, environment=other).status == 0
    assert folders(place) == []
    assert settled_qemus() == []


def test_a_signal_that_is_ignored_stays_so(recorded: Record, place: Path) -> None:
    """As under nohup."""
    process = start(
        *("replay", recorded().path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(has_machine(process), process)
    process.send_signal(signal.SIGHUP)
    done = ended(process)
    assert done.status == 0, done.stderr
    assert re.search(r"stopped at", done.stderr)
