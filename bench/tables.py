"""Compare the tables of the index with single steps, on many random spans.

    python bench/tables.py --spans 100 --recording boot.retro

Goes around all built-in x86_64 guests, those of other ISAs whose QEMU is here, and the
recordings named with --recording. Prints a line for each with its seed, and reconciles
what is read from the log with the log's own counts. Exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from retrograde.errors import Divergence
from retrograde.guests.builtin import builtin_guest, builtin_names
from retrograde.machine.compat import qemu_for
from retrograde.machine.recorder import record
from retrograde.recording.bundle import Recording
from retrograde.verify.conventions import CONVENTIONS
from retrograde.verify.tables import compare_tables, reconcile

BUSY = {"riscv64": 7_500_000}
"""Position up to which the guest works: where it idles, a step over wfi hangs QEMU."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=100, help="of each recording named")
    parser.add_argument("--small", type=int, default=10, help="of each built-in guest")
    parser.add_argument("--length", type=int, default=200, help="positions of a span")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all choices")
    parser.add_argument("--recording", action="append", default=[], help="also this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recordings = [(made, options.small) for made in _builtin(Path(folder))]
        recordings += [(Recording.open(path), options.spans) for path in options.recording]
        equal = [_check(one, count, options) for one, count in recordings]
    return 0 if all(equal) else 1


def _builtin(folder: Path) -> Iterator[Recording]:
    guests = [("x86_64", name) for name in builtin_names()]
    guests += [(target, "tiny") for target in CONVENTIONS if target != "x86_64"]
    for target, name in guests:
        if shutil.which(f"qemu-system-{target}") is None:
            print(f"no QEMU for {target}: left out")
            continue
        path = folder / f"{target}-{name}.retro"
        asyncio.run(record(path, builtin_guest(name, target).qemu_args, target=target))
        yield Recording.open(path)


def _check(recording: Recording, count: int, options: argparse.Namespace) -> bool:
    began = time.monotonic()
    try:
        log = reconcile(recording)
        found = asyncio.run(
            compare_tables(
                recording,
                qemu_for(recording),
                count=count,
                seed=options.seed,
                length=options.length,
                end=BUSY.get(recording.manifest.machine.target),
            )
        )
        outcome = f"{found.spans} spans, {found.positions:_} positions, {found.rows}, {log}: equal"
    except Divergence as error:
        outcome = f"DIFFERENCE {error.what}\n{error.detail}"
    took = time.monotonic() - began
    print(f"{recording.name:28} seed {options.seed} {took:6.1f} s  {outcome}", flush=True)
    return "DIFFERENCE" not in outcome


if __name__ == "__main__":
    sys.exit(main())
