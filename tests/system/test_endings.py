"""However a recording ends, what was recorded is kept and can be replayed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests.command import SECONDS, Done, assert_error, retrograde, start, wait_for
from tests.system import programs

pytestmark = pytest.mark.qemu


@pytest.fixture
def recording_ticker(tmp_path: Path, qemu: Qemu) -> subprocess.Popen[bytes]:
    """`retrograde record` of a guest that never ends, once its log has grown on disk."""
    process = start(
        *("record", "-o", tmp_path / "x.retro", "--", *programs.ticker(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = tmp_path / "x.retro.partial" / "replay.log"
    wait_for(lambda: log.exists() and log.stat().st_size > 1 << 15, process)
    return process


def ended(process: subprocess.Popen[bytes]) -> Done:
    stdout, stderr = process.communicate(timeout=SECONDS)
    return Done(process.returncode, stdout, stderr.decode())


def qemu_of(process: subprocess.Popen[bytes]) -> int:
    """The process id of the QEMU that `process` started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (pid,) = [
        int(child)
        for child in children
        if Path(f"/proc/{child}/comm").read_text().startswith("qemu-system")
    ]
    return pid


def assert_replays(folder: Path) -> None:
    """Replay to the end and find the console that was recorded, all of it."""
    done = retrograde("replay", folder)
    assert done.status == 0, done.stderr
    recording = Recording.open(folder)
    assert f"stopped at {recording.end:_}" in done.stderr
    assert len(done.stdout) > 100
    assert recording.console_path.read_bytes().startswith(done.stdout)
    if recording.complete:
        assert done.stdout == recording.console_path.read_bytes()


def test_timeout_ends_a_guest_that_never_does(tmp_path: Path, qemu: Qemu) -> None:
    folder = tmp_path / "x.retro"
    done = retrograde(
        *("record", "-o", folder, "--timeout", "0.5", "--json", "--"), *programs.ticker(tmp_path)
    )
    info = done.json()
    assert (info["complete"], info["ending"]) == (True, "timeout")
    assert_replays(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_and_completes(
    number: signal.Signals, recording_ticker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    recording_ticker.send_signal(number)
    done = ended(recording_ticker)
    assert done.status == 0, done.stderr
    recording = Recording.open(tmp_path / "x.retro")
    assert recording.complete
    assert recording.manifest.ending == "interrupted"
    assert_replays(recording.path)


def test_ctrl_c_reaches_the_whole_group(
    recording_ticker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    os.killpg(recording_ticker.pid, signal.SIGINT)
    done = ended(recording_ticker)
    assert done.status == 0, done.stderr
    assert Recording.open(tmp_path / "x.retro").complete


def test_qemu_killed(recording_ticker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.kill(qemu_of(recording_ticker), signal.SIGKILL)
    done = ended(recording_ticker)
    assert_error(done, 4, "SIGKILL", "kept, marked incomplete")
    recording = Recording.open(tmp_path / "x.retro")
    assert not recording.complete
    assert recording.end > 1_000_000
    assert "incomplete" in retrograde("info", recording.path).stdout.decode()
    assert_replays(recording.path)


def test_retrograde_killed(recording_ticker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pid = qemu_of(recording_ticker)
    recording_ticker.kill()
    assert ended(recording_ticker).status == -signal.SIGKILL
    until = time.monotonic() + SECONDS
    while runs(pid):
        assert time.monotonic() < until, "QEMU outlived us"
    assert not (tmp_path / "x.retro").exists()
    left = tmp_path / "x.retro.partial"
    recording = Recording.open(left)
    assert not recording.complete
    assert recording.end > 1_000_000
    assert "incomplete" in retrograde("info", left).stdout.decode()
    assert_replays(left)
    again = retrograde("record", "-o", tmp_path / "x.retro", "--", *programs.hello(tmp_path))
    assert again.status == 0, again.stderr
    aside = tmp_path / "x.retro.partial.1"
    assert f"is kept as {aside}" in again.stderr
    assert retrograde("replay", tmp_path / "x.retro").stdout == b"hello\n"
    assert_replays(aside)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_guest_that_chooses_qemus_exit_status(tmp_path: Path, qemu: Qemu) -> None:
    folder = tmp_path / "x.retro"
    done = retrograde("record", "-o", folder, "--json", "--", *programs.exit_11(tmp_path))
    info = done.json()
    assert (info["complete"], info["status"]) == (True, 11)
    replayed = retrograde("replay", folder)
    assert (replayed.status, replayed.stdout) == (0, b"!")
