"""The QEMU on this machine is missing, unfit, or does not like what it is told."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from tests.command import assert_error, retrograde
from tests.conftest import Record
from tests.system import programs

pytestmark = pytest.mark.qemu


def pretend(folder: Path, version: str, accelerators: str, name: str = "qemu-system-x86_64") -> str:
    """Put a program on PATH that answers as that QEMU would; returns the PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *--version*) echo "QEMU emulator version {version}" ;;\n'
        f'*"-accel help"*) printf "Accelerators supported in QEMU binary:\\n{accelerators}" ;;\n'
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:{os.environ['PATH']}"


def test_missing(tmp_path: Path) -> None:
    done = retrograde(
        *("record", "-o", tmp_path / "x.retro", "--", "-M", "pc"), environment={"PATH": "/nowhere"}
    )
    assert_error(
        done, 3, "qemu-system-x86_64 is not installed", "apt-get install", "qemu-system-x86"
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_for_a_target(tmp_path: Path) -> None:
    done = retrograde("record", "-o", tmp_path / "x.retro", "--target", "nosuch", "--")
    assert_error(done, 3, "qemu-system-nosuch is not installed")


def test_qemu_img_missing(tmp_path: Path, qemu: Qemu) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "qemu-system-x86_64").symlink_to(qemu.path)
    done = retrograde(
        *("record", "-o", tmp_path / "x.retro", "--", *programs.hello(tmp_path)),
        environment={"PATH": str(tmp_path / "bin")},
    )
    assert_error(done, 3, "qemu-img is not installed", "qemu-utils")
    assert not (tmp_path / "x.retro").exists()


def test_too_old(tmp_path: Path) -> None:
    path = pretend(tmp_path / "bin", "5.2.0 (Debian 1:5.2+dfsg-11)", "tcg\\nkvm\\n")
    done = retrograde(
        *("record", "-o", tmp_path / "x.retro", "--", "-M", "pc"), environment={"PATH": path}
    )
    assert_error(done, 3, "QEMU 5.2.0", "older than 7.2", "10.0")
    assert not (tmp_path / "x.retro").exists()


def test_without_tcg(tmp_path: Path) -> None:
    path = pretend(tmp_path / "bin", "10.0.2", "kvm\\nxen\\n")
    done = retrograde(
        *("record", "-o", tmp_path / "x.retro", "--", "-M", "pc"), environment={"PATH": path}
    )
    assert_error(done, 3, "was built without TCG")
    assert not (tmp_path / "x.retro").exists()


def test_no_qemu_at_all(tmp_path: Path) -> None:
    done = retrograde(
        *("record", "-o", tmp_path / "x.retro", "--qemu", "/bin/true", "--", "-M", "pc"),
    )
    assert_error(done, 3, "does not answer --version")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-kernel", "/no/such/kernel"], ["/no/such/kernel"]),
        (["-M", "nosuch"], ["nosuch", "-M help"]),
        (["-cpu", "nosuch"], ["does not accept", "nosuch"]),
        (["-device", "virtio-rng-pci,nosuch=1"], ["does not accept", "nosuch"]),
        (["-m", "plenty"], ["plenty"]),
        (["-smp", "3,cores=2"], ["-smp 3,cores=2", "places"]),
        (["-smp", "2", "-M", "microvm"], ["2 processors", "microvm", "-smp 1"]),
        (["-rtc", "base=localtime"], ["time zone"]),
        (["-kernel"], ["lacks its value"]),
        (["-nosuchoption"], ["-nosuchoption"]),
    ],
    ids=lambda value: value[0].strip("-") if value else None,
)
def test_arguments_that_do_not_work(
    arguments: list[str], words: list[str], tmp_path: Path, qemu: Qemu
) -> None:
    done = retrograde("record", "-o", tmp_path / "x.retro", "--timeout", 5, "--", *arguments)
    assert_error(done, 2, *words)
    assert list(tmp_path.iterdir()) == []


def test_kernel_that_is_none(tmp_path: Path, qemu: Qemu) -> None:
    kernel = tmp_path / "notes.txt"
    kernel.write_text("This is no kernel.\n")
    done = retrograde("record", "-o", tmp_path / "x.retro", "--", "-kernel", kernel)
    assert_error(done, 2, "does not accept this machine")
    assert list(tmp_path.iterdir()) == [kernel]


def test_replay_needs_the_same_build(tmp_path: Path, recorded: Record) -> None:
    recording = recorded()
    version = recording.manifest.qemu.version
    path = pretend(tmp_path / "bin", version, "tcg\\n")
    done = retrograde("replay", recording.path, environment={"PATH": path})
    assert_error(done, 3, "another build of", version, "--force")
    path = pretend(tmp_path / "bin", "9.1.0", "tcg\\n")
    done = retrograde("replay", recording.path, environment={"PATH": path})
    assert_error(done, 3, "9.1.0", version, "--force")


def test_force_tries_another_build(copied, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = copied()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["qemu"] = {"version": "10.0.1", "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert_error(retrograde("replay", folder), 3, "10.0.1", "--force")
    done = retrograde("replay", "--force", folder)
    assert done.status == 0, done.stderr
    assert done.stdout == (folder / "console.log").read_bytes()
