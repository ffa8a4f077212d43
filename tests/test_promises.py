"""A run in CI fails when something is skipped that README promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CONFTEST = "from tests.promises import pytest_sessionfinish as pytest_sessionfinish\n"


@pytest.mark.parametrize(
    ("reason", "ci", "status"),
    [
        ("Skipped: gdb is not installed", True, 1),
        ("this lldb is too old for RISC-V", True, 0),
        ("gdb is not installed", False, 0),
    ],
)
def test_skips(tmp_path: Path, reason: str, ci: bool, status: int) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    code = f"import pytest\n\n\ndef test():\n    pytest.skip({reason!r})\n\n\ndef test_it(): pass\n"
    (tmp_path / "test_one.py").write_text(code)
    here = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
    ]
    done = subprocess.run(
        [*command, "-c", "/dev/null", tmp_path],
        cwd=here,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(here)} | ({"CI": "true"} if ci else {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout
    assert ("promised by README" in done.stdout) == (status == 1)
