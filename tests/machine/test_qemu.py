"""What is asked of the installed QEMU, and which quirks follow from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks, QemuDied, RecordingError, UsageError
from retrograde.machine.image import create_image
from retrograde.machine.probe.support import require_probe
from retrograde.machine.qemu import Qemu, install_hint, installed_targets
from retrograde.machine.quirks import (
    ANNOUNCE,
    EARLY_SHUTDOWN,
    HPET,
    LATE_TIMER,
    QUIRKS,
    TOD,
    VAPIC,
    WINDOW,
    quirks_for,
    quirks_named,
)
from retrograde.recording.rrlayout import LAYOUTS
from tests.conftest import find_qemu
from tests.system.test_qemu_at_hand import pretend


@pytest.mark.qemu
def test_what_the_installed_one_says(qemu: Qemu) -> None:
    assert qemu.full_version.startswith(".".join(map(str, qemu.version)))
    assert "tcg" in qemu.accelerators
    assert qemu.digest == hashlib.sha256(qemu.path.read_bytes()).hexdigest()
    pc = qemu.machine_type("pc")
    assert pc
    assert pc.ram_id == "pc.ram"
    assert qemu.machine_type(qemu.default_board) == pc
    assert qemu.machine_type("nosuch") is None
    assert qemu.default_ram_bytes("pc") == 128 << 20
    assert "hpet" in qemu.machine_properties("pc")
    assert qemu.log_version in LAYOUTS


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("7.1.0", False), ("7.2.0", True), ("7.2.22 (Debian 1:7.2+dfsg-7)", True), ("11.0.50", True)],
)
def test_versions(
    version: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", pretend(tmp_path, version, "tcg\\n"))
    if accepted:
        assert Qemu.find("x86_64").full_version == version
    else:
        with pytest.raises(EnvironmentLacks, match="older than"):
            Qemu.find("x86_64")


def test_program_that_does_not_run(tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_bytes(b"\x7fELF, but not really")
    program.chmod(0o755)
    with pytest.raises(EnvironmentLacks, match="does not run"):
        Qemu.find("x86_64", str(program))


def killed_when_asked(folder: Path, question: str) -> str:
    """Put a QEMU on PATH that is killed when it is asked `question`; returns the PATH."""
    path = pretend(folder, "10.0.2", "tcg\\n")
    program = folder / "qemu-system-x86_64"
    answers = program.read_text().removeprefix("#!/bin/sh\n")
    program.write_text(f'#!/bin/sh\ncase "$*" in *"{question}"*) kill -9 $$ ;; esac\n{answers}')
    return path


@pytest.mark.parametrize("question", ["--version", "-accel help", "-qmp stdio", "-M pc,help"])
def test_killed_while_it_is_asked(
    question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is concluded from the silence: memory ran out, likely."""
    monkeypatch.setenv("PATH", killed_when_asked(tmp_path, question))
    with pytest.raises(QemuDied, match="ended by SIGKILL") as caught:
        qemu = Qemu.find("x86_64")
        qemu.machine_properties("pc")
        assert qemu.machine_types
    assert "memory" in caught.value.remedy


def test_killed_while_it_loads_the_probe(tmp_path: Path) -> None:
    killed_when_asked(tmp_path, "-plugin")
    with pytest.raises(QemuDied, match="ended by SIGKILL while loading the probe"):
        require_probe(tmp_path / "qemu-system-x86_64")


def test_qemu_img_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-img"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    killed = pytest.raises(QemuDied, match="qemu-img was ended by SIGKILL")
    with (tmp_path / "image").open("w+b") as file, killed:
        create_image(file.fileno())


def test_installed_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("arm", "x86_64"):
        pretend(tmp_path, "10.0.2", "tcg\\n", f"qemu-system-{name}")
    (tmp_path / "qemu-system-amd64").symlink_to("qemu-system-x86_64")
    # The last can as little be looked at as a folder that is not for us.
    entries = (str(tmp_path), "/no/such/folder", "/etc/passwd", "/" + 300 * "x")
    monkeypatch.setenv("PATH", os.pathsep.join(entries))
    assert installed_targets() == ("arm", "x86_64")


def test_packages() -> None:
    assert "qemu-system-arm " in install_hint("aarch64")
    assert "qemu-system-misc " in install_hint("riscv64")


@pytest.mark.qemu
def test_quirks_follow_the_board(qemu: Qemu) -> None:
    late = [LATE_TIMER] if qemu.version >= LATE_TIMER.since else []
    last = [*late, *([EARLY_SHUTDOWN] if qemu.version < EARLY_SHUTDOWN.until else [])]
    assert quirks_for(qemu, "pc") == [VAPIC, HPET, *last]
    assert quirks_for(qemu, "microvm") == [VAPIC, *last]
    assert quirks_for(qemu, "pc", frozenset({"x86-hpet"})) == [VAPIC, *last]
    assert quirks_for(qemu, "microvm", models=["virtio-net-device"]) == [
        VAPIC,
        ANNOUNCE,
        *last,
    ]
    assert quirks_for(qemu, "microvm", models=["virtio-blk-device"]) == [VAPIC, *last]
    assert quirks_named((), (), qemu) == late  # also in recordings made before that was known
    with pytest.raises(UsageError, match="no quirk called 'nosuch'"):
        quirks_for(qemu, "pc", frozenset({"nosuch"}))


@pytest.mark.qemu
def test_quirks_of_another_target() -> None:
    assert quirks_for(find_qemu("s390x"), "s390-ccw-virtio")[0] == TOD
    assert WINDOW in quirks_for(find_qemu("sparc64"), "sun4u")


def test_quirks_by_name() -> None:
    assert quirks_named(("x86-hpet",)) == [HPET]
    with pytest.raises(RecordingError, match="not known here: forgotten"):
        quirks_named(("x86-hpet", "forgotten"))
    assert len({quirk.name for quirk in QUIRKS}) == len(QUIRKS)


@pytest.mark.qemu
@pytest.mark.parametrize("model", ("qemu-xhci", "nec-usb-xhci"))
def test_an_xhci_controller_takes_no_checkpoints(qemu: Qemu, model: str) -> None:
    """Also in recordings made before that was known."""
    (applied,) = (one for one in quirks_for(qemu, "pc", models=[model]) if one.no_checkpoints)
    assert model in applied.devices
    assert quirks_named((), [model]) == [applied]
    assert quirks_named((), ["piix3-usb-uhci"]) == []
