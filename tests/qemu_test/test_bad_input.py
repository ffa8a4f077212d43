"""What is not as it should be: said in one sentence, as a skip or a failure."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from qemu_test import LinuxKernelTest, QemuSystemTest, QemuUserTest
from qemu_test.emulator import Emulator, NotAnEmulator
from tests.qemu_test.running import outcome


class Case(QemuSystemTest):
    __test__ = False  # run by the tests below

    def test(self) -> None: ...

    def test_machine(self) -> None:
        self.set_machine("no-such-machine")

    def test_accelerators(self) -> None:
        self.require_accelerator("tcg")

    def test_hvf(self) -> None:
        self.require_accelerator("hvf")

    def test_netdev(self) -> None:
        self.require_netdev("nonesuch")

    def test_device(self) -> None:
        self.require_device("nonesuch")

    def test_no_console(self) -> None:
        self.vm.console_socket  # noqa: B018


class Vax(QemuSystemTest):
    __test__ = False

    def test_xtensaeb(self) -> None: ...


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def fake_qemu(folder: Path, **answers: str) -> str:
    """Return a program that answers as a QEMU would: `machine`, `accel`, … by `help`."""
    cases = "".join(f"*-{key}*) printf '{text}' ;; " for key, text in answers.items())
    version = "*--version*) echo QEMU emulator version 10.0.0 ;;"
    return script(folder / "qemu-system-fake", f'case "$*" in {version} {cases} esac')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("echo GNU bash, version 5", "is not QEMU: its --version says 'GNU bash, version 5'"),
        ("exit 1", "is not QEMU"),
    ],
)
def test_a_binary_that_cannot_be_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str
) -> None:
    path = tmp_path / "qemu-system-x86_64"
    if text is not None:
        script(path, text)
    monkeypatch.setenv("QEMU_TEST_QEMU_BINARY", str(path))
    kind, why = outcome(Case)
    assert kind == "failed"
    assert words in why
    assert "Name an installed qemu-system-*" in why


def test_a_binary_that_is_not_executable(tmp_path: Path) -> None:
    path = tmp_path / "qemu-system-x86_64"
    path.write_text("x")
    with pytest.raises(NotAnEmulator, match="not executable"):
        Emulator.at(str(path))


def test_a_binary_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_test.emulator.ASK_SECONDS", 0.1)
    with pytest.raises(NotAnEmulator, match="does not run"):
        Emulator.at(script(tmp_path / "qemu-system-x86_64", "exec sleep 60"))


def test_no_qemu_of_the_target_a_test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QEMU_TEST_QEMU_BINARY", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    kind, why = outcome(Vax, "test_xtensaeb")
    assert (kind, "qemu-system-xtensaeb is not installed" in why) == ("skipped", True)


def test_a_binary_relative_to_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QEMU_TEST_QEMU_BINARY", "./qemu-system-fake")
    assert outcome(Case) == ("passed", "")
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("test_machine", "no support for machine no-such-machine"),
        ("test_accelerators", "tcg accelerator does not seem to be available"),
        ("test_hvf", "hvf accelerator"),
        ("test_netdev", "no support for network backend nonesuch"),
        ("test_device", "no support for device nonesuch"),
    ],
)
def test_what_a_qemu_does_not_have_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, words: str
) -> None:
    path = fake_qemu(tmp_path, accel="kvm\\n", machine="pc  Standard PC\\n", netdev="user\\n")
    monkeypatch.setenv("QEMU_TEST_QEMU_BINARY", path)
    kind, why = outcome(Case, method)
    assert (kind, words in why) == ("skipped", True), why


def test_a_console_that_was_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_TEST_QEMU_BINARY", fake_qemu(tmp_path))
    kind, why = outcome(Case, "test_no_console")
    assert kind == "error"
    assert "call set_console(), then launch()" in why


def test_a_binary_gone_at_the_launch(tmp_path: Path) -> None:
    from qemu_test.machine import QEMUMachine, VMLaunchFailure

    vm = QEMUMachine(str(tmp_path / "gone"), base_temp_dir=str(tmp_path))
    with pytest.raises(VMLaunchFailure, match="gone is not a program"):
        vm.launch()
    assert list(tmp_path.iterdir()) == []


class User(QemuUserTest):
    __test__ = False

    def test_arm(self) -> None:
        self.add_ldpath("/lib/one")
        self.add_ldpath("/lib/two")
        done = self.run_cmd("/bin/program", ["word"])
        assert done.stdout == "-L /lib/one -L /lib/two /bin/program word\n"
        assert done.returncode == 3


def test_programs_under_a_user_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'case "$*" in *--version) echo qemu-arm version 10.0.0 ;; *) echo "$@"; exit 3 ;; esac'
    path = script(tmp_path / "qemu-arm", text)
    monkeypatch.setenv("QEMU_TEST_QEMU_BINARY", path)
    assert outcome(User, "test_arm") == ("passed", "")


def test_the_skipped_leave_nothing(build_folder: Path, tmp_path: Path) -> None:
    assert issubclass(LinuxKernelTest, QemuSystemTest)
    assert not list(build_folder.rglob("scratch"))
