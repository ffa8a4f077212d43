"""What recording costs, against plain QEMU runs of the same guest in the same session.

    python bench/record.py [--runs 5] [--guest reference]

Runs take turns, so that a busy machine slows all of them alike:

plain     QEMU with -icount, the same machine and remedies, no record/replay
stock rr  the same with QEMU's own rr=record: what any recorder on QEMU must pay
recorded  `retrograde record`, from its start to its end
its QEMU  the part of it between the start and the end of the machine

For each it prints the wall time and, more robust on a shared machine, the processor
time of QEMU; then the size of the log, the memory of our own process, and how soon
the command line answers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrograde.guests import Guest, builtin_guest, reference_guest
from retrograde.recording.bundle import Recording

REMEDIES = ("-machine", "hpet=off", "-global", "apic-common.vapic=off")
QUIET = ("-display", "none", "-net", "none", "-monitor", "none")

CLOCK_TICK = 0.01
"""Processor seconds are told in steps of this; a single step is no measurement."""

RETROGRADE = "from retrograde.cli.main import main; main()"
# VmHWM, not ru_maxrss: that one counts the parent's memory at the time of the fork.
MEASURED = (
    "import atexit, re, sys\n"
    "def tell():\n"
    "    status = open('/proc/self/status').read()\n"
    "    print('PEAK', re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
    "atexit.register(tell)\n" + RETROGRADE
)


@dataclass
class Runs:
    """The wall and processor seconds of several runs of one thing."""

    name: str
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def time(self, run: Callable[[], object]) -> None:
        """Run once. Processor time is that of the processes it started and waited for."""
        before, start = os.times(), time.perf_counter()
        run()
        self.wall.append(time.perf_counter() - start)
        after = os.times()
        self.processor.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )

    def report(self, base: Runs) -> None:
        """Print the median and range of each, and their ratios to `base`."""
        for kind in ("wall", "processor"):
            mine, theirs = getattr(self, kind), getattr(base, kind)
            if not mine or min(theirs) <= CLOCK_TICK + 1e-9:
                continue
            ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
            print(f"  {self.name:10} {kind:9} {spread(mine)} s   x {spread(ratios)}")


def spread(values: Sequence[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(values):7.3f} [{min(values):7.3f} .. {max(values):7.3f}]"


def retrograde(*words: str | Path, code: str = RETROGRADE) -> subprocess.CompletedProcess[str]:
    """Run our command line."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )


def peak_megabytes(*words: str | Path) -> float:
    """Return the largest memory our own process had."""
    stderr = retrograde(*words, code=MEASURED).stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("PEAK ")]
    return int(line.split()[1]) / 1000


def record_costs(guest: Guest, runs: int, place: Path) -> Recording:
    """Measure recording; return the last recording."""
    qemu = f"qemu-system-{guest.target}"
    machine = [qemu, *guest.qemu_args, *QUIET, *(REMEDIES if "x86" in guest.target else ())]
    plain, stock, recorded = Runs("plain"), Runs("stock rr"), Runs("recorded")
    inside = Runs("its QEMU")
    image, log, output = place / "image.qcow2", place / "log", place / "x.retro"
    drive = f"if=none,id=vm,file={image},format=qcow2"
    console = f"file:{place / 'console'}"
    words = ("record", "-o", output, "--target", guest.target, "--", *guest.qemu_args)
    rr = f"shift=7,rr=record,rrfile={log},rrsnapshot=init"

    def run(*words: str) -> None:
        subprocess.run([*machine, *words], check=True, stdin=subprocess.DEVNULL)

    for number in range(runs):
        if number:
            shutil.rmtree(output)
        plain.time(lambda: run("-serial", console, "-icount", "shift=7"))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
        stock.time(lambda: run("-drive", drive, "-serial", console, "-icount", rr))
        recorded.time(lambda: retrograde(*words))
        inside.wall.append(Recording.open(output).manifest.seconds)
    print(f"recording {guest.name} ({guest.description}), {runs} runs in turn; ratios to plain")
    for each in (plain, stock, recorded, inside):
        each.report(plain)
    return Recording.open(output)


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--guest", default="reference")
    options = parser.parse_args()
    guest = reference_guest() if options.guest == "reference" else builtin_guest(options.guest)
    with tempfile.TemporaryDirectory(prefix="retrograde-bench-") as folder:
        place = Path(folder)
        recording = record_costs(guest, options.runs, place)
        size, end = recording.log_path.stat().st_size, recording.end
        print(f"log: {size:_} B for {end:_} instructions, {1000 * size / end:.2f} B per 1000")
        again = ("record", "-o", place / "y.retro", "--target", guest.target, "--")
        print(f"our memory recording: {peak_megabytes(*again, *guest.qemu_args):.0f} MB")
        print(f"our memory replaying: {peak_megabytes('replay', recording.path):.0f} MB")
        bare, commands = Runs("python -c ''"), [Runs("--help"), Runs("info")]
        for _ in range(4 * options.runs):
            bare.time(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
            commands[0].time(lambda: retrograde("--help"))
            commands[1].time(lambda: retrograde("info", recording.path))
        print("answering; ratios to a Python that does nothing")
        for each in (bare, *commands):
            each.report(bare)


if __name__ == "__main__":
    main()
