"""What the living hold stays; what the dead left goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrograde.held import Scratch, hold, sweep

MAKE = (
    "import os, signal, sys\nfrom pathlib import Path\nfrom retrograde.held import Scratch\n"
    "scratch = Scratch(Path(sys.argv[1]))\n(scratch.path / 'file').write_text('x')\n"
)


def make(place: Path, ending: str) -> int:
    """Make a scratch folder in a process that ends in that way; returns its exit status."""
    return subprocess.run([sys.executable, "-c", MAKE + ending, str(place)]).returncode


def test_a_scratch_folder_goes(tmp_path: Path) -> None:
    with Scratch(tmp_path) as folder:
        (folder / "file").write_text("x")
        sweep(tmp_path)
        assert (folder / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_with_the_process(tmp_path: Path) -> None:
    assert make(tmp_path, "") == 0
    assert list(tmp_path.iterdir()) == []


def test_it_is_swept_when_its_maker_was_killed(tmp_path: Path) -> None:
    make(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert len(list(tmp_path.iterdir())) == 1
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_removed_goes_at_the_end(tmp_path: Path) -> None:
    failing_once = (
        "import shutil\nreal, times = shutil.rmtree, []\n"
        "shutil.rmtree = lambda *a, **k: times.append(1) if not times else real(*a, **k)\n"
        "scratch.close()\nassert scratch.path.exists()\n"
    )
    assert make(tmp_path, failing_once) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "retrograde-link.scratch").symlink_to("elsewhere")
    (tmp_path / "retrograde-file.scratch").write_text("x")
    (tmp_path / "retrograde-notes").mkdir()
    before = sorted(tmp_path.iterdir())
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    sweep(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_stays(tmp_path: Path) -> None:
    other = tmp_path / "retrograde-other.scratch"
    other.mkdir()
    os.chown(other, 12345, 12345)
    sweep(tmp_path)
    assert other.is_dir()


def test_one_holds_it(tmp_path: Path) -> None:
    first = hold(tmp_path)
    assert first
    assert hold(tmp_path) is None
    first.close()
    again = hold(tmp_path)
    assert again
    del again
    assert hold(tmp_path)


def test_an_empty_one_goes_without_a_descriptor(tmp_path: Path) -> None:
    """Whoever has none left still gives back what it made."""
    ending = (
        "(scratch.path / 'file').unlink()\n"
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "scratch.close()\n"
        "os._exit(0)"
    )
    assert make(tmp_path, ending) == 0
    assert list(tmp_path.iterdir()) == []
