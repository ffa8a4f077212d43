"""`retrograde info`, and how soon the command line answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.cli.info import Info, facts, info_of
from retrograde.guests.builtin import builtin_guest
from retrograde.recording.bundle import Recording
from retrograde.recording.sealed import seal
from tests.command import retrograde
from tests.conftest import Record
from tests.damage import spoil

HEAVY = {"numpy", "rich", "qemu", "asyncio", "hashlib", "subprocess", "backports", "pygdbmi"}

pytestmark = pytest.mark.qemu


def loaded_by(*words: str | Path) -> set[str]:
    """Return the heavy modules that `retrograde WORDS` imports."""
    code = (
        "import sys, json, atexit\n"
        f"atexit.register(lambda: print(json.dumps(sorted({HEAVY} & set(sys.modules))),"
        " file=sys.stderr))\n"
        "from retrograde.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("--help") == set()
    assert loaded_by("--version") == set()


def test_info_loads_neither_arrays_nor_qemu(recorded: Record) -> None:
    recording = recorded()
    assert loaded_by("info", recording.path) <= {"rich", "hashlib", "subprocess"}
    assert loaded_by("info", "--json", recording.path) <= {"hashlib"}


def test_info_reads_no_log(copied: Callable[..., Path]) -> None:
    """However long a recording is, and however damaged, info answers at once."""
    folder = copied()
    expected = retrograde("info", "--json", folder).json()
    size = (folder / "replay.log").stat().st_size
    (folder / "replay.log").write_bytes(b"x" * size)
    assert retrograde("info", "--json", folder).json() == expected


def test_json(recorded: Record) -> None:
    recording = recorded()
    info = retrograde("info", "--json", recording.path).json()
    assert set(info) == set(Info.__struct_fields__)
    assert info["recording"] == str(recording.path)
    assert info["end"] == recording.end > 30_000_000
    assert (info["complete"], info["ending"], info["status"]) == (True, "guest-shutdown", 0)
    assert (info["target"], info["shift"], info["ram_bytes"]) == ("x86_64", 7, 32 << 20)
    assert info["log_bytes"] == recording.log_path.stat().st_size
    assert info["console_bytes"] == recording.console_path.stat().st_size
    counts = {kind.name.lower(): n for kind, n in recording.log().summary().counts.items()}
    assert info["events"] == counts
    assert info["events"]["char_write"] == info["console_bytes"]
    (kernel,) = info["inputs"]
    assert kernel["bytes"] == builtin_guest().files[0].stat().st_size
    assert info["quirks"][:2] == ["x86-vapic", "x86-hpet"]


def test_for_people(copied: Callable[..., Path]) -> None:
    said = facts(info_of(Recording.open(copied())))
    assert said["machine"] == "x86_64, 32 MiB RAM (shared memory file)"
    assert said["end"].endswith(" instructions, guest-shutdown")
    assert said["checkpoints"] == "0"


def test_checkpoints_are_counted(copied: Callable[..., Path]) -> None:
    folder = copied()
    index = folder / "cache" / "checkpoints" / "index.json"
    index.parent.mkdir(parents=True)
    index.write_bytes(seal({"origin": {}, "checkpoints": [{"position": 1}, {"position": 2}]}))
    assert info_of(Recording.open(folder)).checkpoints == 2
    spoil(index, b"nonsense")
    assert info_of(Recording.open(folder)).checkpoints == 0


def test_recording_that_nobody_finished(copied: Callable[..., Path]) -> None:
    """As a killed recorder leaves it: a manifest without end, a log without header."""
    folder = copied()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for key in ("complete", "ending", "end", "files", "events", "seconds"):
        del manifest[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with (folder / "replay.log").open("r+b") as log:
        log.write(bytes(12))
        log.truncate(50_001)
    info = info_of(Recording.open(folder))
    assert (info.complete, info.ending) == (False, "killed")
    assert 0 < info.end < 34_000_000
    assert info.events["instruction"] > 100
    assert "incomplete" in facts(info)["end"]
