"""Our two distributions, built from the checkout."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@dataclass(frozen=True)
class Built:
    """Source distribution and wheel of one of our distributions."""

    source: Path
    wheel: Path


def build(project: Path, into: Path) -> Built:
    """Build what is in the folder `project`, with the backend that its pyproject.toml names."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", into],
        cwd=project,
        check=True,
        capture_output=True,
    )
    (source,), (wheel,) = into.glob("*.tar.gz"), into.glob("*.whl")
    return Built(source, wheel)


@pytest.fixture(scope="session")
def retrograde_built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("retrograde-built"))


@pytest.fixture(scope="session")
def qemu_test_built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT / "qemu-test", tmp_path_factory.mktemp("qemu-test-built"))
