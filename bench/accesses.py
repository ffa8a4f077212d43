"""Compare many random watches with what each instruction of the guest `wide` accesses.

    python bench/accesses.py --cases 1000 --output /var/tmp/accesses

On every ISA that has the guest and whose QEMU is installed. Exit code 1, with the seed and
the case, when any answer differs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from retrograde.errors import Divergence, EnvironmentLacks
from retrograde.guests.builtin import builtin_guest
from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.machine.recorder import record
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from retrograde.verify.accesses import BORDERS, rounds_of, truth_of
from retrograde.verify.accessfuzz import Fuzz

AT_ONCE = 100
"""Cases of one seed."""


def main() -> int:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    differs = False
    for target in options.target or BORDERS:
        try:
            Qemu.find(target)
        except EnvironmentLacks as error:
            print(f"{target:8} left out: {error.what}")
            continue
        differs |= asyncio.run(_all(_recorded(options.output, target), options))
    return int(differs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="on each ISA")
    parser.add_argument("--seed", type=int, default=1, help="of the first hundred")
    parser.add_argument("--target", action="append", help="only this ISA")
    parser.add_argument("--output", type=Path, default=Path("accesses"))
    return parser.parse_args()


def _recorded(folder: Path, target: str) -> Recording:
    path = folder / f"{target}-wide.retro"
    if not path.is_dir():
        asyncio.run(record(path, builtin_guest("wide", target).qemu_args, target=target))
    return Recording.open(path)


async def _all(recording: Recording, options: argparse.Namespace) -> bool:
    """Whether any answer differs from the truth; says what came out, a line a seed."""
    async with await Timeline.open(recording) as timeline:
        starts = await rounds_of(timeline)
        truth = await truth_of(recording, qemu_for(recording), starts[0], starts[-1])
        differs = False
        for seed in range(options.seed, options.seed + -(-options.cases // AT_ONCE)):
            fuzz, began, outcome = Fuzz(timeline, truth, seed), time.monotonic(), "equal"
            try:
                await fuzz.run(AT_ONCE)
            except Divergence as error:
                outcome, differs = f"DIFFERENCE {error.what}", True
            seconds = time.monotonic() - began
            done = f"{fuzz.cases} cases, {fuzz.hits} hits"
            print(
                f"{recording.name:22} seed {seed:3} {seconds:6.1f} s  {done}  {outcome}", flush=True
            )
    return differs


if __name__ == "__main__":
    sys.exit(main())
