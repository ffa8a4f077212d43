"""Archives without an input, and what may take its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retrograde.errors import RecordingError, UsageError
from retrograde.recording import bases as module
from retrograde.recording.archive import pack, unpack
from retrograde.recording.bundle import Recording
from tests.command import assert_error, retrograde
from tests.recording.handmade import KERNEL, make_recording


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A recording that was packed without its kernel."""
    archive = tmp_path / "a.tar.zst"
    pack(make_recording(tmp_path / "a.retro"), archive, without=["kernel"])
    return archive


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    file = tmp_path / "vmlinuz"
    file.write_bytes(KERNEL)
    return file


def test_it_is_left_out_and_put_in(packed: Path, kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="was packed without inputs/kernel of 6 bytes"):
        unpack(packed, tmp_path / "b.retro")
    assert not list(tmp_path.glob("b.retro*"))
    restored = unpack(packed, tmp_path / "b.retro", bases=[kernel])
    assert restored.manifest == Recording.open(tmp_path / "a.retro").manifest
    assert restored.input_path("kernel").read_bytes() == KERNEL
    assert not restored.input_path("kernel").is_symlink()


def test_it_need_not_be_there_to_be_left_out(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "a.retro")
    recording.input_path("kernel").unlink()
    pack(recording, tmp_path / "a.tar.zst", without=["kernel"])


def test_large_ones_are_linked(
    packed: Path, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COPY_LIMIT", 1)
    link = tmp_path / "link"
    link.symlink_to(kernel)
    restored = unpack(packed, tmp_path / "b.retro", bases=[link])
    assert restored.input_path("kernel").readlink() == kernel
    restored.check_inputs()


@pytest.mark.parametrize("content", [b"", b"kernel2", b"Kernel"])
def test_one_of_another_digest(packed: Path, tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    with pytest.raises(UsageError, match="is no input that") as refused:
        unpack(packed, tmp_path / "b.retro", bases=[other])
    assert "inputs/kernel of 6 bytes, SHA-256" in refused.value.remedy
    assert not list(tmp_path.glob("b.retro*"))


def test_what_is_no_plain_file(packed: Path, tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for base in (pipe, loop, tmp_path, tmp_path / "none", Path("/dev/zero")):
        with pytest.raises(UsageError, match="cannot be read"):
            unpack(packed, tmp_path / "b.retro", bases=[base])
    assert not list(tmp_path.glob("b.retro*"))


def test_one_that_is_not_wanted(packed: Path, kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        unpack(packed, tmp_path / "b.retro", bases=[kernel, kernel])
    assert refused.value.remedy == "It lacks: nothing."


def test_the_recordings_own_files_are_no_inputs(tmp_path: Path, kernel: Path) -> None:
    """Only inputs are taken from elsewhere, whatever digest the manifest gives."""
    recording = make_recording(tmp_path / "a.retro")
    with pytest.raises(UsageError, match="has no input replay") as refused:
        pack(recording, tmp_path / "a.tar.zst", without=["replay.log"])
    assert refused.value.remedy == "Its inputs are: kernel."
    assert not (tmp_path / "a.tar.zst").exists()


def test_the_commands(tmp_path: Path, kernel: Path) -> None:
    recording = make_recording(tmp_path / "a.retro")
    words = ("pack", recording.path, "--without-base", "kernel", "-o", tmp_path / "a.tar.zst")
    assert retrograde(*words).status == 0
    again = ("unpack", tmp_path / "a.tar.zst", "-o", tmp_path / "b.retro")
    assert_error(retrograde(*again), 2, "was packed without inputs/kernel", "--base FILE")
    assert retrograde(*again, "--base", kernel).status == 0
    assert Recording.open(tmp_path / "b.retro").manifest == recording.manifest
