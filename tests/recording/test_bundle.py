"""The recording directory: opened, checked, made."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from retrograde.errors import (
    EnvironmentLacks,
    InputChanged,
    LogCorrupt,
    PositionError,
    UsageError,
)
from retrograde.recording import bundle
from retrograde.recording.bundle import RESERVE, Draft, Recording
from retrograde.recording.manifest import encode_manifest
from tests.recording.handmade import CONSOLE, END, KERNEL, make_recording, replaced


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "a.retro")


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft.create(tmp_path / "x.retro")


def filled(draft: Draft) -> Draft:
    for name in ("replay.log", "console.log", "machine.qcow2"):
        (draft.path / name).write_bytes(name.encode())
    return draft


def test_open(recording: Recording) -> None:
    assert recording.name == "a.retro"
    assert recording.path.is_absolute()
    assert (recording.complete, recording.end) == (True, END)
    assert repr(recording) == "<Recording a.retro: x86_64, end 1_000>"
    recording.check_inputs()
    recording.check_digests()


def test_relative_path_is_kept_absolute(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recording.path.parent)
    opened = Recording.open("a.retro")
    monkeypatch.chdir("/")
    assert opened.console_path.read_bytes() == CONSOLE


def test_resolve(recording: Recording) -> None:
    assert recording.resolve("end") == END
    assert recording.resolve("50%") == END // 2
    assert recording.resolve(17) == 17
    assert recording.resolve("console:hello") == END
    with pytest.raises(PositionError, match="never shows"):
        recording.resolve("console:nonsense")


def test_unfinished_recording_ends_where_its_log_does(recording: Recording) -> None:
    manifest = replaced(recording, complete=False, ending="killed", files={}, end=0)
    (recording.path / "manifest.json").write_bytes(encode_manifest(manifest))
    reopened = Recording.open(recording.path)
    assert not reopened.complete
    assert reopened.end == END
    reopened.check_digests()


def test_damaged_log_says_where(recording: Recording) -> None:
    content = recording.log_path.read_bytes()
    recording.log_path.write_bytes(content[:12] + b"\x63" + content[13:])
    with pytest.raises(LogCorrupt, match="damaged at byte 12, position 0"):
        recording.check_digests()


def test_changed_log_is_noticed_when_whole(recording: Recording) -> None:
    content = recording.log_path.read_bytes()
    recording.log_path.write_bytes(content[:16] + b"\x01" + content[17:])
    with pytest.raises(LogCorrupt, match="not what was recorded"):
        recording.check_digests()
    recording.check_digests(["console.log"])


def test_input_that_is_elsewhere_now(recording: Recording, tmp_path: Path) -> None:
    kernel = recording.input_path("kernel")
    kernel.unlink()
    kernel.symlink_to(tmp_path / "gone")
    with pytest.raises(InputChanged, match="is gone"):
        recording.check_inputs()
    (tmp_path / "gone").write_bytes(KERNEL)
    recording.check_inputs()


def test_draft_becomes_a_recording(recording: Recording, draft: Draft, tmp_path: Path) -> None:
    source = tmp_path / "kernel"
    source.write_bytes(KERNEL)
    entry = draft.add_input(source)
    assert entry == recording.manifest.inputs[0]
    assert draft.path == tmp_path / "x.retro.partial"
    made = filled(draft).finish(replaced(recording, files={}))
    assert made.path == tmp_path / "x.retro"
    assert not draft.path.exists()
    assert {path.name for path in made.path.iterdir()} == {
        *("manifest.json", "inputs", "replay.log", "console.log", "machine.qcow2")
    }
    made.check_digests()
    made.check_inputs()


def test_draft_opens_as_incomplete(recording: Recording, draft: Draft, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(KERNEL)
    draft.add_input(tmp_path / "kernel")
    draft.write_manifest(replaced(recording, complete=False, ending="killed", files={}))
    opened = Recording.open(filled(draft).path)
    assert not opened.complete
    draft.discard()
    assert not draft.path.exists()


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(
    recording: Recording, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft.write_manifest(recording.manifest)
    before = (draft.path / "manifest.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(EnvironmentLacks):
        patch.setattr(os, "fsync", lambda _: os.close(-1))
        draft.write_manifest(replaced(recording, end=7))
    assert (draft.path / "manifest.json").read_bytes() == before
    assert [path.name for path in draft.path.glob("*.new")] == []
    draft.discard()


def test_reserve_is_real_space(draft: Draft) -> None:
    """A sparse file would reserve nothing."""
    assert (draft.path / RESERVE).stat().st_blocks * 512 >= bundle.RESERVE_BYTES
    draft.discard()


def test_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.retro").mkdir()
    with pytest.raises(UsageError, match="already there"):
        Draft.create(tmp_path / "x.retro")
    (tmp_path / "x.retro").rmdir()
    (tmp_path / "x.retro.partial").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="already there"):
        Draft.create(tmp_path / "x.retro")
    (tmp_path / "x.retro.partial").unlink()


def test_a_living_maker_is_respected(draft: Draft) -> None:
    with pytest.raises(UsageError, match="being made by another"):
        Draft.create(draft.final)
    draft.discard()


def test_what_a_dead_maker_left_without_an_execution_goes(tmp_path: Path) -> None:
    left = tmp_path / "x.retro.partial"
    (left / "inputs").mkdir(parents=True)
    (left / "reserve").write_bytes(b"x")
    for name in ("replay.log", "ports.log"):
        (left / name).touch()
    draft = Draft.create(tmp_path / "x.retro")
    assert draft.aside is None
    assert {path.name for path in tmp_path.iterdir()} == {"x.retro.partial"}
    draft.discard()


@pytest.mark.parametrize("name", ["replay.log", "letter.txt"])
def test_an_execution_or_what_is_not_ours_is_moved_aside(tmp_path: Path, name: str) -> None:
    left = tmp_path / "x.retro.partial"
    for number in ("1", "2"):
        left.mkdir()
        (left / name).write_text(number)
        draft = Draft.create(tmp_path / "x.retro")
        assert draft.aside == tmp_path / f"x.retro.partial.{number}"
        assert (draft.aside / name).read_text() == number
        draft.discard()
        del draft


def test_name_gets_taken_meanwhile(recording: Recording, draft: Draft) -> None:
    (draft.final / "something").mkdir(parents=True)
    with pytest.raises(EnvironmentLacks, match="cannot be written: Directory not empty"):
        filled(draft).finish(replaced(recording, inputs=recording.manifest.inputs))
    assert (draft.path / "manifest.json").is_file()
    draft.discard()


def test_inputs_of_the_same_name(draft: Draft, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "-bzImage x").write_bytes(folder.encode())
    names = [draft.add_input(tmp_path / folder / "-bzImage x").name for folder in ("a", "b")]
    assert names == ["bzImage_x", "2-bzImage_x"]
    assert (draft.path / "inputs" / names[1]).read_bytes() == b"b"
    draft.discard()


def test_large_input_is_linked(
    draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "COPY_LIMIT", 3)
    (tmp_path / "disk").write_bytes(b"four")
    name = draft.add_input(tmp_path / "disk").name
    assert (draft.path / "inputs" / name).readlink() == tmp_path / "disk"
    draft.discard()


def test_large_input_is_copied_when_asked(
    draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "COPY_LIMIT", 3)
    (tmp_path / "disk").write_bytes(b"four")
    linked = draft.add_input(tmp_path / "disk")
    copied = draft.add_input(tmp_path / "disk", copy=True)
    (tmp_path / "disk").write_bytes(b"five")
    assert copied.sha256 == linked.sha256 == hashlib.sha256(b"four").hexdigest()
    assert (draft.path / "inputs" / copied.name).read_bytes() == b"four"
    assert (draft.path / "inputs" / linked.name).read_bytes() == b"five"
    draft.discard()


def test_a_long_wait_for_a_digest_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()
    texts: list[str] = []

    def say(text: str) -> None:
        texts.append(text)
        said.set()

    monkeypatch.setattr(bundle, "ANNOUNCED_SECONDS", 0.0)
    monkeypatch.setattr(bundle._log, "warning", say)

    def slow(file: object, name: str) -> object:
        assert said.wait(60)
        return hashlib.sha256(b"four")

    monkeypatch.setattr(hashlib, "file_digest", slow)
    (tmp_path / "disk").write_bytes(b"four")
    with (tmp_path / "disk").open("rb") as file:
        assert bundle.digest_file(file, "disk").bytes == 4
    assert "4 bytes of disk" in texts[0]


def test_input_that_cannot_be_read(draft: Draft, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        draft.add_input(tmp_path / "none")
    draft.discard()


def test_manifest_is_replaced_whole(recording: Recording, draft: Draft) -> None:
    """Whatever happens while writing, the old manifest or the new one is there."""
    draft.write_manifest(replaced(recording, seconds=1.0))
    draft.write_manifest(replaced(recording, seconds=2.0))
    data = (draft.path / "manifest.json").read_bytes()
    assert msgspec.json.decode(data)["seconds"] == 2.0
    assert stat.S_ISREG(os.lstat(draft.path / "manifest.json").st_mode)
    assert not (draft.path / "manifest.json.new").exists()
    draft.discard()
