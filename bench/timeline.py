"""Measure the timeline beside stock QEMU, in one run, on the reference guest.

    ./dev bench timeline [--quick] [--plot docs/timeline-latency.svg] [RECORDING]

Prints the table of targets with p50, p95 and p99 where there is a distribution, and
ratios against what stock QEMU's own `bs` and `bc` take on the same recording. Without
RECORDING the reference guest is recorded into a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.guests import reference_guest
from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.machine.recorder import record
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline.survey import survey
from retrograde.timeline.timeline import Timeline

FAR = 1_000_000_000
SEED = 20
LARGE_RAM = 1 << 30
"""Bytes from which on a seek may take longer."""


@dataclass
class Samples:
    """Latencies in seconds, each at a position."""

    taken: list[tuple[int, float]]

    @property
    def seconds(self) -> list[float]:
        return sorted(seconds for _position, seconds in self.taken)

    def quantile(self, share: float) -> float:
        """Return the latency `share` of the samples do not exceed."""
        ordered = self.seconds
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self) -> str:
        names = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        return "  ".join(f"{name} {human(self.quantile(share))}" for name, share in names)


def human(seconds: float) -> str:
    """Print a time with the unit that suits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def line(what: str, value: str, target: str = "", met: bool | None = None) -> None:
    mark = {None: " ", True: "✓", False: "✗"}[met]
    print(f"{mark} {what:46} {value:62} {target}", flush=True)


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def stock_bs(recording: Recording, qemu: Qemu, count: int) -> list[float]:
    """Time stock QEMU's own reverse step at 1 G, from the snapshot of position 0."""
    async with await Replayer.start(recording, qemu) as replayer:
        await replayer.run_to(FAR)
        gdb = await replayer.gdb()
        return [await timed(gdb.reverse_step(seconds=600)) for _ in range(count)]


async def stock_bc(recording: Recording, qemu: Qemu, start: int, pc: int) -> float:
    """Time stock QEMU's own reverse continue from `start` to the last hit of `pc`."""
    async with await Replayer.start(recording, qemu) as replayer:
        await replayer.run_to(start)
        gdb = await replayer.gdb()
        await gdb.insert_breakpoint("hardware", pc, 1)
        return await timed(gdb.reverse_continue(seconds=1200))


async def plain_replay(recording: Recording, qemu: Qemu) -> float:
    async with await Replayer.start(recording, qemu) as replayer:
        return await timed(replayer.run_to(recording.end))


async def far_breakpoint(timeline: Timeline, rng: random.Random) -> tuple[int, int, int]:
    """Return (start, pc, position): an instruction last executed 1 G before `start`."""
    while True:
        start = rng.randrange(int(FAR * 1.5), timeline.end)
        await timeline.seek(start - FAR - rng.randrange(FAR // 10))
        pc, at = await timeline.pc(), timeline.position
        await timeline.seek(start)
        number = timeline.add_breakpoint(pc)
        hit = await timeline.run_back()
        timeline.remove(number)
        if hit and start - hit.position >= FAR * 0.95:
            return start, pc, at


async def measure(recording: Recording, qemu: Qemu, quick: bool) -> tuple[Samples, Samples]:
    rng = random.Random(SEED)
    replay = await plain_replay(recording, qemu)
    line("plain replay, stock", human(replay))
    shutil.rmtree(recording.cache, ignore_errors=True)
    began = time.perf_counter()
    store = await survey(recording, qemu)
    ratio = (time.perf_counter() - began) / replay
    line("checkpoint pass / plain replay", f"{ratio:.2f}", "≤ 1.3", ratio <= 1.3)
    size = store.bytes / 1e6
    line("disk for checkpoints", f"{size:.0f} MB, {len(store.checkpoints)}", "≤ 1 GB", size <= 1000)
    store.close()
    bs = await stock_bs(recording, qemu, 2 if quick else 3)
    line("stock bs at 1 G", ", ".join(human(seconds) for seconds in bs))

    async with await Timeline.open(recording, qemu) as timeline:
        seeks = await seek_samples(timeline, rng, 15 if quick else 100)
        p95 = seeks.quantile(0.95)
        most = 0.25 if recording.manifest.ram.bytes < LARGE_RAM else 1.0
        line("seek, random position", str(seeks), f"p95 ≤ {human(most)}", p95 <= most)
        firsts = await first_steps(timeline, rng, 8 if quick else 40)
        p50 = firsts.quantile(0.5)
        line("first step_back after a far seek", str(firsts), "≤ 300 ms", p50 <= 0.3)
        await thousand_steps(timeline, min(bs))
        if not quick:
            await far_run_back(recording, qemu, timeline, rng)
        own, mapped = memory()
        line(
            "our own memory (and mapped: guest RAM, pages)",
            f"{own:.0f} MB ({mapped:.0f} MB)",
            "≤ 500 MB",
            own <= 500,
        )
    return seeks, firsts


def memory() -> tuple[float, float]:
    """Return our private memory and what we map of files and of QEMU's, in MB."""
    status = dict(
        entry.split(":", 1) for entry in Path("/proc/self/status").read_text().splitlines()
    )
    anonymous, file, shared = (
        int(status[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile", "RssShmem")
    )
    return anonymous, file + shared


async def seek_samples(timeline: Timeline, rng: random.Random, count: int) -> Samples:
    taken = []
    for _ in range(count):
        position = rng.randrange(timeline.end)
        taken.append((position, await timed(timeline.seek(position))))
    return Samples(taken)


async def first_steps(timeline: Timeline, rng: random.Random, count: int) -> Samples:
    taken = []
    for _ in range(count):
        position = rng.randrange(1, timeline.end)
        await timeline.seek(position)
        taken.append((position, await timed(timeline.step_back())))
    return Samples(taken)


async def thousand_steps(timeline: Timeline, stock: float) -> None:
    await timeline.seek(FAR)
    await timeline.step_back()
    began = time.perf_counter()
    samples = Samples([(timeline.position, await timed(timeline.step_back())) for _ in range(1000)])
    total = time.perf_counter() - began
    p50, p99 = samples.quantile(0.5), samples.quantile(0.99)
    line("step_back, warm", str(samples), "p50 ≤ 1 ms, p99 ≤ 50 ms", p50 <= 1e-3 and p99 <= 0.05)
    line("stock bs / step_back p50", f"{stock / p50:,.0f}", "≥ 1000", stock / p50 >= 1000)
    line("1000 × step_back", human(total), "≤ 1 s", total <= 1)


async def far_run_back(
    recording: Recording, qemu: Qemu, timeline: Timeline, rng: random.Random
) -> None:
    start, pc, _at = await far_breakpoint(timeline, rng)
    await timeline.seek(start)
    timeline.add_breakpoint(pc)
    ours = await timed(timeline.run_back())
    distance = start - timeline.position
    stock = await stock_bc(recording, qemu, start, pc)
    ratio = stock / ours
    what = f"{human(ours)} over {distance:_}, stock {human(stock)}: {ratio:.1f}×"
    line("run_back to a breakpoint 1 G earlier", what, "≥ 5×", ratio >= 5)


def plot(path: Path, end: int, series: Sequence[tuple[str, str, Samples]]) -> None:
    """Draw latency over position: one dot a sample, time on a logarithmic scale."""
    width, height, left, bottom = 900, 360, 70, 40
    low, high = 1e-3, 2.0

    def x(position: int) -> float:
        return left + position / end * (width - left - 20)

    def y(seconds: float) -> float:
        share = math.log(max(seconds, low) / low) / math.log(high / low)
        return height - bottom - share * (height - bottom - 30)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for seconds in (0.001, 0.01, 0.1, 0.25, 1.0):
        parts.append(
            f'<line x1="{left}" x2="{width - 20}" y1="{y(seconds):.1f}" y2="{y(seconds):.1f}" '
            f'stroke="#ddd"/><text x="{left - 8}" y="{y(seconds) + 4:.1f}" '
            f'text-anchor="end">{human(seconds)}</text>'
        )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<text x="{x(int(end * share)):.1f}" y="{height - 18}" text-anchor="middle">'
            f"{end * share / 1e9:.2f} G</text>"
        )
    for number, (name, colour, samples) in enumerate(series):
        parts.append(
            f'<circle cx="{left + 20 + 260 * number}" cy="14" r="4" fill="{colour}"/>'
            f'<text x="{left + 30 + 260 * number}" y="18">{name}</text>'
        )
        parts += [
            f'<circle cx="{x(position):.1f}" cy="{y(seconds):.1f}" r="3" fill="{colour}" '
            'fill-opacity="0.7"/>'
            for position, seconds in samples.taken
        ]
    parts.append(f'<text x="{width / 2}" y="{height - 2}" text-anchor="middle">position</text>')
    path.write_text("\n".join([*parts, "</svg>\n"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.recording:
            recording = Recording.open(options.recording)
        else:
            arguments = [*reference_guest().qemu_args, "-vga", "none"]
            recording = asyncio.run(record(Path(folder) / "bench.retro", arguments))
        qemu = qemu_for(recording)
        print(f"{recording.name}: {recording.end:_} instructions, QEMU {qemu.full_version}")
        seeks, firsts = asyncio.run(measure(recording, qemu, options.quick))
        if options.plot:
            series = [("seek", "#1f77b4", seeks), ("first step_back", "#d62728", firsts)]
            plot(options.plot, recording.end, series)


if __name__ == "__main__":
    main()
