"""Building the index of real recordings: the same bytes, whatever interrupts it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from retrograde.errors import RecordingError, UsageError
from retrograde.index.tables.build import build
from retrograde.index.tables.interval import REPLAYED
from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Kind
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import origin_of
from tests import command, leftovers

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

GUEST = "stacks"
DENSE = """
import asyncio, sys
from retrograde.index.tables.build import build
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording

async def run_for(self, _seconds, end):
    await self.run_to(min(end, self.position + 500_000))

# Spaced by time there would be as many checkpoints as the machine's load allows.
Replayer.run_for = run_for
asyncio.run(build(Recording.open(sys.argv[1])))
"""
KILLED = """
import asyncio, os, signal, sys
from retrograde.index.tables.build import build
from retrograde.recording.bundle import Recording

done = []

def progress(position):
    done.append(position)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(build(Recording.open(sys.argv[1]), progress=progress))
"""


@pytest.fixture(scope="module")
def original(recorded: Callable[..., Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with checkpoints close together, and its index."""
    path = tmp_path_factory.mktemp("index") / "stacks.retro"
    shutil.copytree(recorded(GUEST).path, path, ignore=shutil.ignore_patterns("cache"))
    subprocess.run([sys.executable, "-c", DENSE, path], check=True, timeout=120)
    return path


@pytest.fixture
def fresh(original: Path, tmp_path: Path) -> Recording:
    """The same recording with the same checkpoints, not indexed yet."""
    copy = tmp_path / "fresh.retro"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("index"))
    return Recording.open(copy)


def files(path: Path) -> dict[str, bytes]:
    """Return the rows on disk by name."""
    folder = path / "cache" / "index"
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*.parquet")}


async def test_two_workers_write_what_one_does(original: Path, fresh: Recording) -> None:
    seen: list[int] = []
    report = await build(fresh, jobs=2, progress=seen.append)
    assert report.intervals == len(IndexStore(fresh).done("blocks")) > 3
    assert seen == sorted(seen)
    assert seen[-1] == fresh.end
    assert files(fresh.path) == files(original)


def test_a_build_that_was_killed_goes_on(original: Path, fresh: Recording) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, fresh.path], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert leftovers.settled_qemus() == []
    expected = files(original)
    done = files(fresh.path)
    assert len(REPLAYED) < len(done) < len(expected)
    assert done.items() <= expected.items()
    told = command.retrograde("index", fresh.path, "--jobs", "1", "--json").json()
    assert 0 < told["intervals"] < len(IndexStore(fresh).done("blocks"))
    assert files(fresh.path) == expected
    again = command.retrograde("index", fresh.path, "--jobs", "1", "--json").json()
    assert again["intervals"] == 0


async def test_one_table_after_the_other(original: Path, fresh: Recording) -> None:
    await build(fresh, tables=["context", "interrupts"])
    expected = files(original)
    kinds = ("context", "interrupts", "intervals")
    assert files(fresh.path) == {n: b for n, b in expected.items() if n.split("/")[0] in kinds}
    await build(fresh)
    assert files(fresh.path) == expected
    with pytest.raises(UsageError, match="no table 'plots'"):
        await build(fresh, tables=["plots"])


async def test_what_cannot_be_written_keeps_what_is_done(original: Path, fresh: Recording) -> None:
    name = max((original / "cache" / "index" / "context").iterdir()).name
    blocked = IndexStore(fresh).folder / "context" / name
    (blocked / "precious").mkdir(parents=True)
    with pytest.raises(RecordingError, match="is a directory"):
        await build(fresh, tables=REPLAYED)
    assert leftovers.settled_qemus() == []
    shutil.rmtree(blocked)
    expected, done = files(original), files(fresh.path)
    assert 0 < len(done) < len(expected)
    assert done.items() <= expected.items()
    await build(fresh)
    assert files(fresh.path) == expected


async def test_other_checkpoints_make_another_index(original: Path, fresh: Recording) -> None:
    await build(fresh)
    shutil.rmtree(fresh.cache / "checkpoints")
    report = await build(fresh)
    intervals = IndexStore(fresh).done("blocks")
    assert report.intervals == len(intervals)
    assert sum(last - first for first, last in intervals) == fresh.end


def test_rows_reconcile_with_the_log_and_with_each_other(original: Path) -> None:
    recording = Recording.open(original)
    with IndexStore(recording).connect() as rows:
        executed = rows.execute('SELECT sum("count" * instructions) FROM blocks').fetchall()
        assert executed == [(recording.end,)]
        late = rows.execute(
            "SELECT count(*) FROM calls WHERE return_position <= position OR depth < 0"
        ).fetchall()
        assert late == [(0,)]
        spans = rows.execute("SELECT first, last, unplaced FROM intervals ORDER BY 1").fetchall()
        assert [one[1] for one in spans] == [one[0] for one in spans[1:]] + [recording.end]
        assert {one[2] for one in spans} == {0}
        counts = recording.log().summary().counts
        logged = rows.execute("SELECT count(*) FROM interrupts").fetchone()
        assert logged == (counts[Kind.INTERRUPT],)


def test_memory_that_changed_was_written(original: Path) -> None:
    """Each line that differs between two checkpoints is in `written`; stores explain most."""
    recording = Recording.open(original)
    store = CheckpointStore.open(recording, origin_of(recording, qemu_for(recording)))
    assert store is not None
    changed = 0
    with IndexStore(recording).connect() as rows:
        for first, last in pairwise(store.checkpoints):
            before, after = (
                np.concatenate([store.pages.contents(store.table(one))]) for one in (first, last)
            )
            differs = (before != after).reshape(len(before), 64, 8).any(axis=2)
            written = rows.execute(
                "SELECT page, bitmap | device FROM written WHERE interval_first = ?",
                [first.position],
            ).fetchall()
            marked = np.zeros_like(differs)
            for page, bits in written:
                if page // 4096 < len(marked):
                    marked[page // 4096] = [bits >> line & 1 for line in range(64)]
            assert not (differs & ~marked).any()
            changed += differs.sum()
        assert changed > 5000
        # SeaBIOS has an option ROM copied (fw_cfg's DMA) to where it mapped RAM a moment ago.
        copied = rows.execute(
            "SELECT count(*) FROM written WHERE page BETWEEN 655360 AND 1048575 AND device != 0"
        ).fetchone()
        assert copied == (1,)
    store.close()
