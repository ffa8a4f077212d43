"""The images that snapshots live in, by what qemu-img says of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from retrograde.machine.image import create_image, drop_snapshot

pytestmark = pytest.mark.qemu


def test_a_snapshot_is_dropped_if_it_is_there(tmp_path: Path) -> None:
    def snapshots() -> str:
        words = ["qemu-img", "snapshot", "-l", str(tmp_path / "image")]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    with (tmp_path / "image").open("w+b") as file:
        create_image(file.fileno(), snapshot="start_debugging")
        assert "start_debugging" in snapshots()
        drop_snapshot(file.fileno(), "start_debugging")
        drop_snapshot(file.fileno(), "start_debugging")
    assert "start_debugging" not in snapshots()
