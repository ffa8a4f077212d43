"""What the index costs and what it gives, beside a plain replay and searches without it.

    python bench/index.py boot.retro

Works on a copy of the recording. CPU time is that of all processes, so that other load
on the machine counts for little; a plain replay is measured before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import retrograde
from retrograde.index.questions.hints import IndexHints
from retrograde.index.questions.origin import origin
from retrograde.index.questions.writes import build_writes
from retrograde.index.tables.build import build
from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.machine.probe.request import Breakpoint
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline.lastwrite import last_write
from retrograde.timeline.search import Stops
from retrograde.timeline.timeline import Timeline

FAR = 1_000_000_000
STRETCH = 100_000_000
Result = TypeVar("Result")


def cpu_seconds(*, ours: bool = False) -> float:
    """Return the CPU time of all our children that ended, with `ours` also our own."""
    kinds = (resource.RUSAGE_CHILDREN, *([resource.RUSAGE_SELF] if ours else []))
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


async def timed(work: Awaitable[Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


def line(what: str, measured: str, target: str) -> None:
    print(f"| {what} | {measured} | {target} |", flush=True)


async def plain(recording: Recording, stop: int | None = None) -> tuple[float, float]:
    """Return the CPU and wall time of one plain replay, up to `stop`."""
    cpu, began = cpu_seconds(), time.perf_counter()
    async with await Replayer.start(recording, qemu_for(recording)) as replayer:
        await replayer.run_to(stop or recording.end - 1)
    return cpu_seconds() - cpu, time.perf_counter() - began


async def built(recording: Recording, jobs: int) -> tuple[float, float]:
    """Return the CPU and wall time of a whole build."""
    shutil.rmtree(recording.cache / "index", ignore_errors=True)
    cpu, began = cpu_seconds(), time.perf_counter()
    await build(recording, jobs=jobs)
    return cpu_seconds() - cpu, time.perf_counter() - began


async def costs(recording: Recording) -> None:
    before = await plain(recording)
    one = await built(recording, 1)
    between = await plain(recording)
    two = await built(recording, 2)
    after = await plain(recording)
    cpu = sum(times[0] for times in (before, between, after)) / 3
    wall = sum(times[1] for times in (before, between, after)) / 3
    line("plain replay, CPU / wall", f"{cpu:.1f} / {wall:.1f} s", "")
    line("index on one core: CPU / plain", f"{one[0] / cpu:.2f}", "≤ 1.5")
    line("index with --jobs 1: wall / plain", f"{one[1] / wall:.2f}", "")
    line("index with --jobs 2: wall / plain", f"{two[1] / wall:.2f}", "≤ 0.8")
    size = IndexStore(recording).bytes / recording.end
    line("size, bytes an instruction", f"{size:.3f}", "≤ 0.05")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    line("largest process, with shared memory", f"{peak:.0f} MB", "≤ 1000 MB")


async def gains(recording: Recording) -> None:
    rng, hints = random.Random(20), IndexHints.of(recording)
    start = recording.end - 50_000_000
    with IndexStore(recording).connect() as rows:
        addresses = rows.execute("SELECT DISTINCT pc FROM blocks ORDER BY pc").fetchall()
        pages = rows.execute(
            "SELECT page, bitmap FROM written GROUP BY ALL HAVING max(interval_first) "
            "BETWEEN ? AND ? ORDER BY page",
            [start - FAR - 50_000_000, start - FAR + 50_000_000],
        ).fetchall()
    async with await Timeline.open(recording) as timeline:
        pc = next(pc for (pc,) in rng.sample(addresses, len(addresses)) if is_far(hints, pc, start))
        timeline.add_breakpoint(pc)
        for known in (hints, None):
            timeline.hints = known
            await timeline.seek(start)
            hit, seconds = await timed(timeline.run_back())
            name = "indexed" if known else "without the index"
            distance = start - (hit.position if hit else 0)
            line(f"run back {distance:_}, {name}", f"{seconds:.2f} s", "≤ 0.5 s")
            await timeline.seek(0)  # let go of the windows held there
            for position in range(0, 50_000_000, 10_000_000):
                await timeline.seek(position)
        timeline.hints, taken = hints, []
        for page, bitmap in rng.sample(pages, min(10, len(pages))):
            address = page + 64 * ((bitmap & -bitmap).bit_length() - 1) if bitmap else page
            await timeline.seek(start)
            found, seconds = await timed(last_write(timeline, address, 64, "physical"))
            taken.append((seconds, start - found.position if found else start))
        taken.sort()
        seconds, distance = taken[len(taken) // 2]
        line(f"last-write, median (over {distance:_})", f"{seconds:.2f} s", "≤ 0.3 s")


async def traces(recording: Recording) -> None:
    """Trace all stores of a stretch, and follow values of variables written last near the end."""
    first, last = recording.end // 2, recording.end // 2 + STRETCH
    replayed = (await plain(recording, last))[0] - (await plain(recording, first))[0]
    began = cpu_seconds(ours=True)
    report = await build_writes(recording, qemu_for(recording), None, (first, last))
    used = cpu_seconds(ours=True) - began
    line(f"all {report.rows:_} stores of {STRETCH:_}, CPU / plain", f"{used / replayed:.1f}", "")
    line("  instructions a second of CPU time", f"{STRETCH / used:_.0f}", "≥ 100_000_000")
    with IndexStore(recording).connect() as rows:
        places = rows.execute(
            "SELECT paddr FROM writes WHERE size = 8 GROUP BY 1 ORDER BY hash(paddr) LIMIT 20"
        ).fetchall()
    async with await Timeline.open(recording, at=last, replayers=1) as timeline:
        timeline.hints, taken = IndexHints.of(recording), []
        for (place,) in places:
            await timeline.seek(last)
            steps, seconds = await timed(origin(timeline, place, 8, "physical", most=10))
            taken.append((seconds, len(steps)))
    seconds, steps = sorted(taken)[len(taken) // 2]
    line(f"origin of {len(taken)} values, median ({steps} steps)", f"{seconds:.2f} s", "≤ 3 s")


def calls(recording: Recording) -> None:
    """Ask for the calls of functions called some times, and very often."""
    asked = retrograde.open(recording.path)
    asked.calls("do_exit")  # finds the symbols
    for name in ("do_exit", "kfree", "_raw_spin_lock"):
        began = time.perf_counter()
        rows = asked.calls(name)
        listed = time.perf_counter()
        counted = asked.query("SELECT count(*) FROM calls WHERE target = ?", [rows[0][6]]).all()
        assert counted == [(len(rows),)]
        took = f"{listed - began:.2f} / {time.perf_counter() - listed:.2f} s"
        line(f"{len(rows):_} calls of {name}, list / count", took, "≤ 0.1 s")


def is_far(hints: IndexHints | None, pc: int, start: int) -> bool:
    """Whether a breakpoint was last hit about FAR before `start`."""
    if hints is None:
        raise SystemExit("There is no index.")
    spans = hints.spans(Stops((Breakpoint(pc),)), 0, start, only_last=True)
    return bool(spans) and 0.9 * FAR < start - spans[-1][1] < 1.1 * FAR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the index there is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bench.retro"
        shutil.copytree(options.recording, copy)
        recording = Recording.open(copy)
        print(f"{recording.end:_} instructions, {os.cpu_count()} cores")
        if not options.keep:
            asyncio.run(costs(recording))
        asyncio.run(gains(recording))
        asyncio.run(traces(recording))
        calls(recording)


if __name__ == "__main__":
    main()
