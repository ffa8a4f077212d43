"""`retrograde pack` and `unpack` on a real recording."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import assert_error, retrograde
from tests.conftest import Record

pytestmark = pytest.mark.qemu


def test_packed_and_unpacked_it_replays(recorded: Record, tmp_path: Path) -> None:
    recording = recorded()
    packed = retrograde("pack", "--json", recording.path, cwd=tmp_path).json()
    archive = tmp_path / packed["packed"]
    assert archive.name == recording.name + ".tar.zst"
    assert packed["bytes"] == archive.stat().st_size < 200_000
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    unpacked = retrograde("unpack", "--json", archive, cwd=folder).json()
    assert unpacked == {"unpacked": str(folder / recording.name), "end": recording.end}
    done = retrograde("replay", folder / recording.name)
    assert (done.status, done.stdout) == (0, recording.console_path.read_bytes())


def test_what_a_killed_recorder_left(copied: Callable[..., Path], tmp_path: Path) -> None:
    folder = copied()
    partial = folder.rename(tmp_path / "x.retro.partial")
    done = retrograde("pack", partial, cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert (tmp_path / "x.retro.tar.zst").is_file()
    shutil.rmtree(partial)


def test_errors(recorded: Record, tmp_path: Path) -> None:
    recording = recorded()
    taken = tmp_path / "taken.tar.zst"
    taken.write_bytes(b"no archive")
    assert_error(retrograde("pack", recording.path, "-o", taken), 2, "already there")
    assert taken.read_bytes() == b"no archive"
    output = tmp_path / "x.retro"
    assert_error(retrograde("unpack", taken, "-o", output), 2, "not a packed recording")
    assert_error(retrograde("unpack", tmp_path / "none.tar.zst"), 2, "No such file")
    assert_error(retrograde("unpack", tmp_path / "x.zip"), 2, "does not end in .tar.zst", "-o")
    assert_error(retrograde("pack", tmp_path), 2, "is not a recording")
    assert not output.exists()
