"""`./dev` where it cannot do what it would."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.system.test_disk import cannot_mount

READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$1/dev" "$2"'


@pytest.mark.parametrize("command", ["demo", "test", "docs"])
def test_a_read_only_checkout(tmp_path: Path, command: str) -> None:
    if reason := cannot_mount():
        pytest.skip(f"no file system can be mounted here: {reason}")
    checkout = tmp_path / "a checkout"
    (checkout / "qemu-test").mkdir(parents=True)
    for name in ("dev", "pyproject.toml", "qemu-test/pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", checkout, command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"./dev: {checkout} cannot be written to")
    assert "a copy or a clone of your own" in line
