"""Compare many random operations of the timeline with the oracle.

    python bench/oracle.py --operations 10000 --output /var/tmp/oracle

Goes around all built-in x86_64 guests, or with --disks around Linux guests with disks in
constant use, and recordings named with --recording, in slices of a few hundred operations.
Each slice is a line of OUTPUT/results.jsonl with its seed; a run that was stopped goes on
where it was when started again. Exit code 1 when any slice, of this run or an earlier one in
OUTPUT, found a difference.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from retrograde.errors import Divergence
from retrograde.guests.builtin import builtin_guest, builtin_names
from retrograde.guests.diskload import diskload_guest, diskload_names
from retrograde.machine.compat import qemu_for
from retrograde.machine.recorder import record
from retrograde.recording.bundle import Recording
from retrograde.verify.randomly import compare_randomly


class Slice(msgspec.Struct, kw_only=True):
    """One line of results.jsonl."""

    recording: str
    seed: int
    operations: int
    comparisons: int = 0
    kinds: dict[str, int] = {}
    seconds: float = 0.0
    difference: str = ""


def main() -> int:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.jsonl"
    done = _read(results)
    guests = _disks(options.output) if options.disks else _builtin(options.output)
    recordings = [*guests, *map(Recording.open, options.recording)]
    for recording, seed in _plan(recordings, options.seed):
        if sum(one.operations for one in done) >= options.operations:
            break
        if any((one.recording, one.seed) == (recording.name, seed) for one in done):
            continue
        done.append(_run(recording, seed, options.slice))
        with results.open("ab") as file:
            file.write(msgspec.json.encode(done[-1]) + b"\n")
        print(_line(done[-1]), flush=True)
    return _summary(done)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--slice", type=int, default=200, help="operations for one replay")
    parser.add_argument("--seed", type=int, default=1, help="of the first slice")
    parser.add_argument("--disks", action="store_true", help="Linux guests with busy disks")
    parser.add_argument("--recording", action="append", default=[], help="also this one")
    parser.add_argument("--output", type=Path, default=Path("oracle"))
    return parser.parse_args()


def _builtin(folder: Path) -> Iterator[Recording]:
    for name in builtin_names():
        path = folder / f"{name}.retro"
        if not path.is_dir():
            asyncio.run(record(path, builtin_guest(name).qemu_args))
        yield Recording.open(path)


def _disks(folder: Path) -> Iterator[Recording]:
    for name in diskload_names():
        path = folder / f"{name}.retro"
        if not path.is_dir():
            asyncio.run(record(path, diskload_guest(name).qemu_args))
        yield Recording.open(path)


def _plan(recordings: list[Recording], seed: int) -> Iterator[tuple[Recording, int]]:
    while True:
        for recording in recordings:
            yield recording, seed
        seed += 1


def _run(recording: Recording, seed: int, count: int) -> Slice:
    began = time.monotonic()
    result = Slice(recording=recording.name, seed=seed, operations=count)
    try:
        found = asyncio.run(
            compare_randomly(recording, qemu_for(recording), count=count, seed=seed)
        )
        result.comparisons, result.kinds = found.comparisons, found.kinds
    except Divergence as error:
        result.difference = error.what
    result.seconds = round(time.monotonic() - began, 1)
    return result


def _read(path: Path) -> list[Slice]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Slice) for line in lines]


def _line(result: Slice) -> str:
    outcome = result.difference or f"{result.comparisons} comparisons, equal"
    return f"{result.recording:20} seed {result.seed:3} {result.seconds:6.1f} s  {outcome}"


def _summary(done: list[Slice]) -> int:
    equal = [one for one in done if not one.difference]
    differing = [one for one in done if one.difference]
    kinds: Counter[str] = Counter()
    for one in equal:
        kinds.update(one.kinds)
    print(
        f"{sum(one.operations for one in equal):_} operations, "
        f"{sum(one.comparisons for one in equal):_} comparisons equal over "
        f"{len({one.recording for one in equal})} recordings: "
        + ", ".join(f"{count:_} {kind}" for kind, count in kinds.most_common())
    )
    for one in differing:
        print(f"DIFFERENCE {_line(one)}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
