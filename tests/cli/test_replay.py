"""`retrograde replay`: the console again, as far as one wants."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import RETROGRADE, SECONDS, Done, assert_error, retrograde, start
from tests.conftest import Record

HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"

pytestmark = pytest.mark.qemu


def test_to_the_end(recorded: Record) -> None:
    recording = recorded()
    done = retrograde("replay", recording.path)
    assert (done.status, done.stdout) == (0, recording.console_path.read_bytes())
    assert done.stderr.endswith(f"retrograde: stopped at {recording.end:_}\n")


def test_to_what_the_console_shows(recorded: Record) -> None:
    recording = recorded()
    done = retrograde("replay", "--to", 'console:"TINY-START"', recording.path)
    assert (done.status, done.stdout) == (0, b"TINY-START")


def test_json(recorded: Record) -> None:
    recording = recorded()
    found = retrograde("replay", "--json", "--to", "50%", recording.path).json()
    assert found["position"] == recording.end // 2
    assert found["console_equal"] is True
    assert 0 < found["console_bytes"] < recording.console_path.stat().st_size


@pytest.mark.parametrize(
    ("to", "word"),
    [("end+1", "not a position"), ("100G", "outside"), ("console:no such", "never shows")],
)
def test_bad_position(to: str, word: str, recorded: Record) -> None:
    assert_error(retrograde("replay", "--to", to, recorded().path), 2, word)


def test_reader_that_leaves(recorded: Record) -> None:
    """As `| head` does: no traceback, and the replay ends."""
    process = start("replay", recorded().path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 141
    assert stderr == b""


def test_console_onto_a_full_disk(recorded: Record) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    with full.open("wb") as stdout:
        process = start("replay", recorded().path, stdout=stdout, stderr=subprocess.PIPE)
        _, stderr = process.communicate(timeout=SECONDS)
    assert_error(Done(process.returncode, b"", stderr.decode()), 3, "output cannot be written")


def test_ctrl_c(recorded: Record) -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and so these tests.
    program = (sys.executable, "-c", f"{HEED_CTRL_C}; {RETROGRADE[-1]}")
    words = ("replay", recorded().path)
    process = start(*words, program=program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.read(4) == b"TINY"  # it runs
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stderr.strip()) == (130, b"retrograde: Interrupted.")
