"""Skipping, with its reason."""

from __future__ import annotations

import platform
import resource
import unittest
from typing import Any

import pytest

import qemu_test


def reason(decorator: Any) -> str | None:
    """Return why `decorator` skips a test; None when it does not."""

    class Case(unittest.TestCase):
        @decorator
        def test(self) -> None: ...

    result = unittest.TestResult()
    Case("test").run(result)
    assert result.wasSuccessful()
    return result.skipped[0][1] if result.skipped else None


@pytest.mark.parametrize(
    ("variable", "make", "words"),
    [
        (
            "QEMU_TEST_FLAKY_TESTS",
            lambda: qemu_test.skipFlakyTest("https://x/1"),
            "Test is unstable: https://x/1",
        ),
        ("QEMU_TEST_ALLOW_UNTRUSTED_CODE", qemu_test.skipUntrustedTest, "untrusted"),
        ("QEMU_TEST_ALLOW_LARGE_STORAGE", qemu_test.skipBigDataTest, "large storage"),
        ("QEMU_TEST_ALLOW_SLOW", qemu_test.skipSlowTest, "slow"),
    ],
)
def test_what_a_variable_lets_run(
    monkeypatch: pytest.MonkeyPatch, variable: str, make: Any, words: str
) -> None:
    monkeypatch.delenv(variable, raising=False)
    assert words in (reason(make()) or "")
    monkeypatch.setenv(variable, "1")
    assert reason(make()) is None


def test_missing_things(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(qemu_test.skipIfMissingCommands("sh")) is None
    assert "nonesuch" in (reason(qemu_test.skipIfMissingCommands("sh", "nonesuch")) or "")
    assert reason(qemu_test.skipIfMissingImports("json", "os.path")) is None
    assert "none.such" in (reason(qemu_test.skipIfMissingImports("none.such")) or "")
    monkeypatch.delenv("NONESUCH", raising=False)
    assert "NONESUCH" in (reason(qemu_test.skipIfMissingEnv("PATH", "NONESUCH")) or "")
    assert reason(qemu_test.skipIfMissingEnv("PATH")) is None


def test_this_host() -> None:
    assert reason(qemu_test.skipIfOperatingSystem("Darwin")) is None
    assert "Linux" in (reason(qemu_test.skipIfOperatingSystem("Linux")) or "")
    assert reason(qemu_test.skipIfNotMachine("vax", platform.machine())) is None
    assert "vax" in (reason(qemu_test.skipIfNotMachine("vax")) or "")


def test_lockable_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2048, 2048))
    assert reason(qemu_test.skipLockedMemoryTest(2)) is None
    assert "3 KiB" in (reason(qemu_test.skipLockedMemoryTest(3)) or "")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert reason(qemu_test.skipLockedMemoryTest(1 << 40)) is None


def test_on_classes_too() -> None:
    @qemu_test.skipIfNotMachine("vax")
    class Case(unittest.TestCase):
        def test(self) -> None: ...

    result = unittest.TestResult()
    Case("test").run(result)
    assert len(result.skipped) == 1


def test_every_name_is_exported() -> None:
    for name in qemu_test.__all__:
        assert hasattr(qemu_test, name)
