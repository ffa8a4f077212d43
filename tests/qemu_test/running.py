"""Run a test of `qemu_test`, and judge how it went."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120.0


@dataclass(frozen=True)
class Tap:
    """How a test file run as a program ended: its exit code, the results, and stderr."""

    status: int
    results: tuple[str, ...]
    errors: str


def run_file(file: Path, *words: str, cwd: Path, module: bool = False, **environment: str) -> Tap:
    """Run a test file as a program (`module`: by `python -m qemu_test`) and read its TAP."""
    done = subprocess.run(
        [sys.executable, *(["-m", "qemu_test"] if module else []), file, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=SECONDS,
    )
    lines = done.stdout.splitlines()
    assert lines[:1] == ["TAP version 13"], (done.stdout, done.stderr)
    assert lines[-1] == f"1..{len(lines) - 2}", done.stdout
    return Tap(done.returncode, tuple(lines[1:-1]), done.stderr)


def write_tests(file: Path, text: str) -> Path:
    """Write a test file, its folders included; it ends by running itself."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n\nif __name__ == '__main__':\n    QemuBaseTest.main()\n")
    return file


def outcome(case: type[unittest.TestCase], method: str = "test") -> tuple[str, str]:
    """Run one test here; return `passed`, `skipped`, `failed` or `error`, and why."""
    result = unittest.TestResult()
    case(method).run(result)
    for kind, found in (
        ("skipped", result.skipped),
        ("failed", result.failures),
        ("error", result.errors),
    ):
        if found:
            return kind, found[0][1]
    return "passed", ""
