"""The checked-in images are what their sources assemble to, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_BUILD = _ROOT / "guests" / "build.sh"
_IMAGES = _ROOT / "src" / "retrograde" / "guests" / "tiny"

pytestmark = pytest.mark.skipif(
    shutil.which("x86_64-linux-gnu-as") is None, reason="no x86_64-linux-gnu-as"
)


def _build(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script], capture_output=True, text=True, timeout=120)


def test_images_match_their_sources() -> None:
    built = _build(_BUILD)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "built x86_64" in built.stdout


def test_every_source_has_an_image_and_every_image_a_source() -> None:
    sources = (_ROOT / "guests").glob("*/*.S")
    names = {f"{p.parent.name}-{p.stem}" for p in sources if not p.name.endswith(".inc.S")}
    assert {p.stem for p in _IMAGES.iterdir()} == names


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(_ROOT / "guests", tmp_path / "guests")
    copied = tmp_path / "src" / "retrograde" / "guests" / "tiny"
    shutil.copytree(_IMAGES, copied)
    source = tmp_path / "guests" / "x86_64" / "hot.S"
    source.write_text(source.read_text().replace("HITS, 1000000", "HITS, 1000001"))
    built = _build(tmp_path / "guests" / "build.sh")
    assert built.returncode == 1
    assert "x86_64-hot.elf" in built.stdout
