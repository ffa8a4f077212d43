"""The wheel, installed without its source, does what README says under "Yours"."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from retrograde.guests.builtin import builtin_guest
from tests.docs.pages import ROOT, section, shell_lines
from tests.packaging.conftest import Built

SECONDS = 120.0

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]

OURS = {
    # README has a real kernel; it takes a minute and more.
    '-append "console=ttyS0 panic=-1"': "",
    "-initrd initrd.cpio": "",
    'console:"Kernel panic"': "console:TINY-DONE",
    "0xffffffff82a0c3c0": "0x200000",
}
"""What stands in README, and what for it in the test."""


@pytest.fixture(scope="module")
def programs(retrograde_built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtual environment with the wheel, and what it needs, in it.

    What it needs is that of this environment, whose own retrograde is not seen: a .pth file
    found on a path of a .pth file is not read.
    """
    place = tmp_path_factory.mktemp("installed") / "with spaces"
    venv.create(place)
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "--quiet"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", retrograde_built.wheel], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


def test_it_is_the_installed_one(programs: Path, tmp_path: Path) -> None:
    code = (
        "import retrograde, importlib.util as u; print(retrograde.__file__, u.find_spec('tests'))"
    )
    done = run([programs / "python", "-c", code], programs, tmp_path)
    file, _, tests = done.stdout.decode().strip().rpartition(" ")
    assert Path(file).is_relative_to(programs.parent)
    assert tests == "None"


def test_readme(programs: Path, tmp_path: Path, qemu: object, probe: None) -> None:
    """Every command of that section, with nothing in the cache: the probe is compiled here."""
    (guest,) = builtin_guest().files
    for name in ("bzImage", "vmlinux"):
        shutil.copy(guest, tmp_path / name)
    lines = list(shell_lines(section((ROOT / "README.md").read_text(), "Yours")))
    assert len(lines) == 12
    for line in lines:
        for theirs, ours in OURS.items():
            line = line.replace(theirs, ours)
        if "good.retro" in line:
            for name in ("good.retro", "bad.retro"):
                shutil.copytree(tmp_path / "boot.retro", tmp_path / name)
        done = run(["sh", "-c", line], programs, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    assert list((tmp_path / "home" / ".cache" / "retrograde").glob("probe-*.so"))


def run(
    words: list[str | Path], programs: Path, folder: Path
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a user who has nothing of ours but the wheel."""
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMPDIR": os.environ["TMPDIR"],
    }
    (folder / "home").mkdir(exist_ok=True)
    return subprocess.run(
        words, cwd=folder, env=environment, input=b"quit\n", capture_output=True, timeout=SECONDS
    )
