"""Places that cannot be written, and disks that are full."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests.command import Done, assert_error, retrograde
from tests.conftest import Record
from tests.system import programs

pytestmark = pytest.mark.qemu


@functools.cache
def cannot_mount() -> str:
    """Why this user cannot mount a file system of their own; "" when they can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, text=True)
    return done.stderr.strip()


def on_small_disk(mount: Path, size: str, *words: str | Path, keep: Path | None = None) -> Done:
    """Run `retrograde WORDS` with a tmpfs of `size` at `mount`, which goes with it.

    What is in it is copied to `keep` first. The mount is in a namespace of its own.
    """
    if reason := cannot_mount():
        pytest.skip(f"no file system can be mounted here: {reason}")
    mount.mkdir()
    script = (
        f'mount -t tmpfs -o size={size} none "$0" || exit 99; "$@"; status=$?; '
        + (f'cp -a "$0" "{keep}"; ' if keep else "")
        + "exit $status"
    )
    return retrograde(*words, prefix=("unshare", "-rm", "sh", "-c", script, str(mount)))


def test_output_is_there(tmp_path: Path, qemu: Qemu) -> None:
    output = tmp_path / "x.retro"
    output.mkdir()
    done = retrograde("record", "-o", output, "--", *programs.hello(tmp_path))
    assert_error(done, 2, "x.retro is already there")
    assert list(output.iterdir()) == []


def test_output_is_a_dangling_link(tmp_path: Path, qemu: Qemu) -> None:
    output = tmp_path / "x.retro"
    output.symlink_to("nowhere")
    done = retrograde("record", "-o", output, "--", *programs.hello(tmp_path))
    assert_error(done, 2, "x.retro is already there")
    assert output.is_symlink()


def test_output_below_a_file(tmp_path: Path, qemu: Qemu) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "x.retro"
    done = retrograde("record", "-o", output, "--", *programs.hello(tmp_path))
    assert_error(done, 2, "cannot be made", "writable")


def test_output_on_a_read_only_disk(tmp_path: Path, qemu: Qemu) -> None:
    mount = tmp_path / "mnt"
    arguments = programs.hello(tmp_path)
    done = on_small_disk(mount, "1m,ro", "record", "-o", mount / "x.retro", "--", *arguments)
    assert_error(done, 2, "cannot be made", "Read-only file system")


def test_replay_from_a_read_only_disk(tmp_path: Path, recorded: Record) -> None:
    if reason := cannot_mount():
        pytest.skip(f"no file system can be mounted here: {reason}")
    recording = recorded()
    script = 'mount --bind -o ro "$0" "$0" && mount -o remount,bind,ro "$0" || exit 99; exec "$@"'
    prefix = ("unshare", "-rm", "sh", "-c", script, str(recording.path))
    done = retrograde("replay", recording.path, prefix=prefix)
    assert done.status == 0, done.stderr
    assert done.stdout == recording.console_path.read_bytes()


def test_disk_fills_while_recording(tmp_path: Path, qemu: Qemu) -> None:
    mount, kept = tmp_path / "mnt", tmp_path / "kept"
    arguments = programs.ticker(tmp_path)
    done = on_small_disk(
        *(mount, "1m", "record", "-o", mount / "x.retro", "--timeout", 60, "--", *arguments),
        keep=kept,
    )
    assert_error(done, 3, "cannot take more of the log", "Free some space", "x.retro")
    recording = Recording.open(kept / "x.retro")
    assert not recording.complete
    assert recording.end > 1_000_000
    replayed = retrograde("replay", recording.path)
    assert replayed.status == 0, replayed.stderr
    assert recording.console_path.read_bytes().startswith(replayed.stdout)


@pytest.mark.parametrize("size", ["4k", "68k", "140k", "200k"])
def test_disk_too_small_to_begin(size: str, tmp_path: Path, qemu: Qemu) -> None:
    mount, kept = tmp_path / "mnt", tmp_path / "kept"
    arguments = programs.hello(tmp_path)
    done = on_small_disk(
        mount, size, "record", "-o", mount / "x.retro", "--", *arguments, keep=kept
    )
    assert_error(done, 3, "space")
    assert list(kept.iterdir()) == []


def test_pack_onto_a_full_disk(tmp_path: Path, recorded: Record) -> None:
    mount, kept = tmp_path / "mnt", tmp_path / "kept"
    done = on_small_disk(mount, "4k", "pack", recorded().path, "-o", mount / "x.tar.zst", keep=kept)
    assert_error(done, 3, "cannot be written", "No space left")
    assert list(kept.iterdir()) == []


def test_unpack_onto_a_full_disk(tmp_path: Path, recorded: Record) -> None:
    archive = tmp_path / "x.tar.zst"
    assert retrograde("pack", recorded().path, "-o", archive).status == 0
    mount, kept = tmp_path / "mnt", tmp_path / "kept"
    done = on_small_disk(mount, "64k", "unpack", archive, "-o", mount / "x.retro", keep=kept)
    assert_error(done, 3, "unpacks to", "has space for", "Free some space")
    assert list(kept.iterdir()) == []


def test_stdout_on_a_full_disk(recorded: Record) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    words = [sys.executable, "-c", "from retrograde.cli.main import main; main()"]
    with full.open("wb") as stdout:
        done = subprocess.run(
            [*words, "info", "--json", str(recorded().path)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert_error(
        Done(done.returncode, b"", done.stderr), 3, "output cannot be written", "No space left"
    )
