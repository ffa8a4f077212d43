"""Recordings that are damaged, changed or made by somebody who means harm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrograde.recording.manifest import FORMAT
from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import RrLog
from tests.command import assert_error, retrograde

pytestmark = pytest.mark.qemu

Copied = Callable[..., Path]


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Let `edit` change the manifest of a recording."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def add_option(option: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["machine"]["options"].append(option)


def assert_refused(folder: Path, status: int, *words: str) -> None:
    """`info` and `replay` both say so; nothing is run, whether forced or not."""
    for command in (["info"], ["replay"], ["replay", "--force"]):
        assert_error(retrograde(*command, folder), status, folder.name, *words)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'{"format": "1"}', b"[" * 200_000],
    ids=["empty", "cut", "binary", "list", "null", "wrong type", "deep"],
)
def test_manifest_is_none(content: bytes, copied: Copied) -> None:
    folder = copied()
    (folder / "manifest.json").write_bytes(content)
    assert_refused(folder, 2, "manifest", "not valid")


def test_manifest_is_huge(copied: Copied) -> None:
    folder = copied()
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(1 << 40)
    assert_refused(folder, 2, "absurdly large")


def test_manifest_is_a_pipe(copied: Copied) -> None:
    folder = copied()
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    assert_refused(folder, 2, "is not a recording", "Not a regular file")


def test_no_manifest(tmp_path: Path) -> None:
    assert_error(retrograde("info", tmp_path), 2, "is not a recording", "manifest.json")
    assert_error(retrograde("info", tmp_path / "none"), 2, "is not a recording")


def test_newer_format(copied: Copied) -> None:
    folder = copied()
    change(folder, lambda manifest: manifest.update(format=FORMAT + 1, a_new_field=1))
    assert_refused(folder, 2, f"has format {FORMAT + 1}", "newer retrograde")


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda m: m.update(nonsense=1), "nonsense"),
        (lambda m: m["qemu"].update(path="/bin/sh"), "path"),
        (lambda m: m["inputs"][0].update(name="../../etc/passwd"), "inputs"),
        (lambda m: m["inputs"][0].update(name="/etc/passwd"), "inputs"),
        (lambda m: m["inputs"][0].update(name=".."), "inputs"),
        (lambda m: m["inputs"][0].update(name="vmlinuz\n"), "inputs"),
        (lambda m: m["inputs"].append(m["inputs"][0]), "twice"),
        (lambda m: m["inputs"].clear(), "input number 0"),
        (lambda m: m.update(end=-1), "end"),
        (lambda m: m["ram"].update(bytes=1 << 62), "ram"),
        (lambda m: m["files"].clear(), "complete"),
        (lambda m: m["files"].update({"../x": m["files"]["replay.log"]}), "files"),
        (lambda m: m["machine"].update(target="../../bin/sh"), "target"),
        (lambda m: m["machine"].update(target="x86_64 -monitor stdio"), "target"),
        (lambda m: m["qemu"].update(version="\x1b]0;owned\x07"), "version"),
        (add_option({"kind": "flag", "name": "enable-kvm"}), "enable-kvm"),
        (add_option({"kind": "flag", "name": "\x1b[2J"}), "options"),
        (add_option({"kind": "text", "name": "plugin", "value": "/tmp/evil.so"}), "plugin"),
        (add_option({"kind": "text", "name": "monitor", "value": "stdio"}), "monitor"),
        (add_option({"kind": "shell", "name": "x"}), "shell"),
        (
            add_option({"kind": "properties", "name": "chardev", "items": [["backend", "file"]]}),
            "chardev",
        ),
        (
            add_option(
                {
                    "kind": "properties",
                    "name": "device",
                    "items": [["driver", "loader"], ["file", "/etc/shadow"]],
                }
            ),
            "file",
        ),
        (
            add_option({"kind": "properties", "name": "device", "items": [["driver", "vfio-pci"]]}),
            "vfio-pci",
        ),
        (
            add_option(
                {
                    "kind": "properties",
                    "name": "object",
                    "items": [["qom-type", "memory-backend-file"], ["mem-path", "/dev/sda"]],
                }
            ),
            "mem",
        ),
    ],
)
def test_manifest_that_breaks_the_rules(
    edit: Callable[[dict[str, Any]], object], word: str, copied: Copied
) -> None:
    folder = copied()
    change(folder, edit)
    done = retrograde("replay", "--force", folder)
    assert_error(done, 2, folder.name, "not valid", word)
    assert done.stdout == b""
    assert "\x1b" not in done.stderr


def test_input_changed(copied: Copied) -> None:
    folder = copied()
    (kernel,) = (folder / "inputs").iterdir()
    content = bytearray(kernel.read_bytes())
    content[100] ^= 1
    kernel.write_bytes(content)
    assert_error(retrograde("replay", folder), 2, kernel.name, "changed", "SHA-256")


def test_input_missing(copied: Copied) -> None:
    folder = copied()
    (kernel,) = (folder / "inputs").iterdir()
    kernel.unlink()
    assert_error(retrograde("replay", folder), 2, kernel.name, "is gone", "Put the original back")
    assert_error(retrograde("replay", "--force", folder), 2, kernel.name, "is gone")


def test_input_is_a_pipe(copied: Copied) -> None:
    folder = copied()
    (kernel,) = (folder / "inputs").iterdir()
    kernel.unlink()
    os.mkfifo(kernel)
    for force in ([], ["--force"]):
        done = retrograde("replay", *force, folder)
        assert_error(done, 2, kernel.name, "Not a regular file")


@pytest.mark.parametrize("name", ["replay.log", "console.log", "machine.qcow2"])
def test_file_missing(name: str, copied: Copied) -> None:
    folder = copied()
    (folder / name).unlink()
    assert_refused(folder, 2, f"has no {name}")


@pytest.mark.parametrize("name", ["console.log", "replay.log"])
def test_info_sees_that_a_file_is_cut(name: str, copied: Copied) -> None:
    folder = copied()
    os.truncate(folder / name, 100)
    assert_error(retrograde("info", folder), 2, name.partition(".")[0])


@pytest.mark.parametrize("name", ["console.log", "machine.qcow2"])
def test_file_changed(name: str, copied: Copied) -> None:
    folder = copied()
    with (folder / name).open("r+b") as file:
        file.seek(50)
        file.write(b"\xa5\x5a")
    assert_error(retrograde("replay", folder), 2, name, "not what was recorded")


def assert_log_refused(folder: Path, *words: str) -> None:
    """Neither way of replaying lets QEMU have the log."""
    for force in ([], ["--force"]):
        done = retrograde("replay", *force, folder)
        assert_error(done, 2, "log", *words)
        assert done.stdout == b""


@pytest.mark.parametrize("keep", [0, 5, 12, 13, 2000, -1])
def test_log_truncated(keep: int, copied: Copied) -> None:
    folder = copied()
    os.truncate(folder / "replay.log", keep % (folder / "replay.log").stat().st_size)
    words = ["byte", "position"] if keep else ["(0 bytes, "]
    assert_log_refused(folder, *words)


def test_log_with_a_flipped_kind(copied: Copied) -> None:
    folder = copied()
    log = folder / "replay.log"
    events = RrLog.open(log).events({Kind.INSTRUCTION})
    event = next(event for event in events if event.offset > 3000)
    with log.open("r+b") as file:
        file.seek(event.offset)
        file.write(b"\x80")
    assert_log_refused(folder, f"byte {event.offset:_}", f"position {event.position:_}")


def test_log_with_a_flipped_count(copied: Copied) -> None:
    """Whole as a log, and yet not what was recorded: only the digest knows."""
    folder = copied()
    log = folder / "replay.log"
    event = next(event for event in RrLog.open(log).events({Kind.INSTRUCTION}) if event.position)
    with log.open("r+b") as file:
        file.seek(event.offset + 4)
        (low,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([low ^ 1]))
    assert_log_refused(folder, "not what was recorded")


def test_log_of_another_recording(copied: Copied, recorded: Callable[..., Any]) -> None:
    folder = copied()
    shutil.copyfile(recorded("hot").log_path, folder / "replay.log")
    assert_log_refused(folder, "not what was recorded")


def test_image_that_leads_elsewhere(copied: Copied, tmp_path: Path) -> None:
    """A qcow2 header can name a file that QEMU would open for its data."""
    folder = copied()
    with (folder / "machine.qcow2").open("r+b") as file:
        file.seek(72)
        file.write((1 << 2).to_bytes(8, "big"))
    assert_error(retrograde("replay", "--force", folder), 2, "keeps its data in another file")


def test_name_with_brackets(copied: Copied) -> None:
    """Brackets are markup to the library that prints tables."""
    folder = copied()
    folder = folder.rename(folder.with_name("a[b]:smile:[red].retro"))
    done = retrograde("info", folder, environment={"COLUMNS": "500"})
    assert "a[b]:smile:[red].retro" in done.stdout.decode()
