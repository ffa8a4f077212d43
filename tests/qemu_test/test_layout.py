"""What the place and name of a test file tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qemu_test.environment import prepare
from qemu_test.layout import (
    emulator_for,
    functional_folder,
    host_target,
    let_import_helpers,
    target_named,
)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("x86_64", "x86_64"),
        ("test_x86_64_reverse_debug", "x86_64"),
        ("test_mips64el_replay", "mips64el"),
        ("test_reverse_debug_ppc64", "ppc64"),
        ("ReverseDebugging_AArch64", "aarch64"),
        ("test_aarch64_virt", "aarch64"),
        ("test_arm_replay", "arm"),
        ("test_alarm", None),
        ("SparcTest", "sparc"),
    ],
)
def test_targets_in_names(name: str, target: str | None) -> None:
    assert target_named([name]) == target


@pytest.mark.parametrize(
    ("file", "names", "user", "program"),
    [
        ("functional/x86_64/test_arm_thing.py", (), False, "qemu-system-x86_64"),
        ("functional/test_ppc64_reverse_debug.py", (), False, "qemu-system-ppc64"),
        ("functional/generic/test_vnc.py", ("Vnc", "test_a"), False, None),
        ("functional/generic/test_boot.py", ("Boot", "test_s390x_ccw"), False, "qemu-system-s390x"),
        ("functional/arm/test_bflt.py", (), True, "qemu-arm"),
    ],
)
def test_the_emulator_a_test_speaks_of(
    file: str, names: tuple[str, ...], user: bool, program: str | None
) -> None:
    found, _ = emulator_for(Path("/src/tests") / file, names, user=user)
    assert found == (program or f"qemu-system-{host_target()}")


def test_where_data_and_helpers_lie() -> None:
    folder = Path("/src/tests/functional")
    for name in ("x86_64/test_a.py", "generic/test_a.py", "test_a.py"):
        assert functional_folder(folder / name) == folder


def test_helpers_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/first"])
    for _ in range(2):
        let_import_helpers(Path("/src/functional/x86_64/test_a.py"))
    assert sys.path == ["/first", "/src/functional/x86_64", "/src/functional"]


def test_gdb_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("QEMU_TEST_GDB", "/my/gdb")
    prepare()
    assert os.environ["QEMU_TEST_GDB"] == "/my/gdb"
    monkeypatch.setenv("QEMU_TEST_GDB", "")
    prepare()
    assert "QEMU_TEST_GDB" not in os.environ
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    prepare()
    assert os.environ["QEMU_TEST_GDB"] == "/bin/gdb-multiarch"
    monkeypatch.delenv("QEMU_TEST_GDB")
    monkeypatch.setattr("shutil.which", lambda _: None)
    prepare()
    assert "QEMU_TEST_GDB" not in os.environ
