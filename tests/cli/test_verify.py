"""`retrograde verify`: the scenario with real gdb, and random operations with the oracle."""

from __future__ import annotations

import pytest

from tests.command import assert_error, retrograde
from tests.conftest import Record, qemu_that_replays

pytestmark = [pytest.mark.qemu, pytest.mark.gdb]


def test_a_recording_runs_backwards(recorded: Record) -> None:
    recording = recorded()
    verdict = retrograde("verify", "--json", "--steps", "3", recording.path).json()
    assert verdict["verified"]
    assert verdict["scenario"]["steps"] == 3
    assert verdict["scenario"]["stopped_at"] <= recording.end
    assert verdict["random"] is None
    told = retrograde("verify", recording.path)
    assert told.status == 0
    assert b"10 instructions forward, back and forward again" in told.stdout


def test_random_operations_repeat_by_their_seed(recorded: Record) -> None:
    path = recorded().path
    words = ("verify", "--json", "--random", "20", "--seed", "7", path)
    verdict, again = retrograde(*words).json(), retrograde(*words).json()
    assert verdict["random"]["operations"] == 20
    assert verdict["random"]["comparisons"] >= 20
    assert verdict["random"] == again["random"]
    assert verdict["checkpoints"]["dropped"] == []
    assert verdict["checkpoints"]["comparisons"] > 0


def test_where_qemu_cannot_go_back(recorded: Record) -> None:
    qemu_that_replays("riscv64")
    recording = recorded("tiny", "riscv64")
    verdict = retrograde("verify", "--json", recording.path).json()
    if "riscv-aclint" not in recording.manifest.quirks:
        assert verdict["scenario"]
        return
    assert (verdict["unloadable"], verdict["scenario"]) == ("riscv-aclint", None)
    assert verdict["verified"]
    assert verdict["random"]["operations"] == 5


def test_a_gdb_that_is_missing(recorded: Record) -> None:
    done = retrograde("verify", "--gdb", "no-such-gdb", recorded().path)
    assert_error(done, 3, "no-such-gdb")
