"""What the guest's clock costs and breaks: systems recorded at every shift, and replayed.

    python bench/clock.py [SYSTEM...] [--output /var/tmp/clock] [--shifts 2 4 7]

For each: instructions up to the last thing it is to say, the size of the log and its events,
processor seconds of recording and of replaying it all, and how often the console tells of
time-outs. The recordings are kept in OUTPUT and used again.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.errors import PositionError
from retrograde.guests import apt
from retrograde.guests.cached import cached
from retrograde.guests.debian import debian_guest
from retrograde.guests.reference import reference_guest
from retrograde.recording.bundle import LOG, Recording

RETROGRADE = (sys.executable, "-c", "from retrograde.cli.main import main; main()")
SHIFTS = (0, 1, 2, 3, 4, 5, 6, 7)
LATE = re.compile(r"time[d-]?[ -]?out|stall|lockup|took too long|Failed to start", re.IGNORECASE)
"""What guests say when their clock has overtaken them."""


@dataclass(frozen=True)
class System:
    """A machine, what it says last, and after how many seconds it is ended if it does not."""

    target: str
    words: Sequence[str]
    done: str
    timeout: int


def _linux() -> System:
    guest = reference_guest()
    return System(guest.target, guest.qemu_args, guest.done, 300)


def _debian() -> System:
    guest = debian_guest()
    return System(guest.target, guest.qemu_args, guest.done, 900)


def _firmware(package: str, name: str, path: str) -> str:
    def unpack(result: Path, work: Path) -> None:
        apt.fetch(package, None, work)
        shutil.copyfile(work / path, result / name)

    return str(cached(f"firmware-{package}-{name}", unpack) / name)


def _uboot() -> System:
    image = _firmware("u-boot-qemu", "u-boot.bin", "usr/lib/u-boot/qemu_arm64/u-boot.bin")
    words = ("-M", "virt", "-cpu", "cortex-a57", "-m", "128", "-nographic", "-bios", image)
    return System("aarch64", (*words, "-net", "none"), "=> ", 60)


def _uefi() -> System:
    code = _firmware("ovmf", "OVMF.fd", "usr/share/ovmf/OVMF.fd")
    words = ("-M", "q35", "-m", "256", "-nographic", "-net", "none", "-bios", code)
    return System("x86_64", words, "Shell>", 90)


SYSTEMS: Mapping[str, Callable[[], System]] = {
    "linux": _linux,
    "debian": _debian,
    "u-boot": _uboot,
    "uefi": _uefi,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", nargs="*", choices=[*SYSTEMS, []])
    parser.add_argument("--output", type=Path, default=Path("build/clock"))
    parser.add_argument("--shifts", type=int, nargs="+", default=SHIFTS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print("system  shift  G to the end  log MB  M events  record CPU s  replay CPU s  late")
    for name in options.system or SYSTEMS:
        system = SYSTEMS[name]()
        for shift in options.shifts:
            _measure(name, system, shift, options.output / f"{name}-{shift}.retro")


def _measure(name: str, system: System, shift: int, path: Path) -> None:
    recording = "-"
    if not path.is_dir():
        words = ("record", "-o", path, "--shift", shift, "--target", system.target)
        seconds = _cpu(*words, "--timeout", system.timeout, "--", *system.words)
        recording = f"{seconds:.1f}"
    replaying = _cpu("replay", path)
    opened = Recording.open(path)
    try:
        end = f"{opened.resolve(f'console:{system.done}') / 1e9:.3f}"
    except PositionError:
        end = f"(not by {opened.end / 1e9:.3f})"
    late = LATE.findall((path / "console.log").read_text(errors="replace"))
    summary = opened.log().summary()
    print(
        f"{name:8} {shift:4}  {end:>12}  {(path / LOG).stat().st_size / 1e6:6.1f}"
        f"  {sum(summary.counts.values()) / 1e6:8.2f}  {recording:>12}  {replaying:12.1f}"
        f"  {len(late)}",
        flush=True,
    )


def _cpu(*words: object) -> float:
    """Run a command to its end; return the processor seconds of it and its QEMU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*RETROGRADE, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 130):
        sys.exit(f"retrograde {words[0]} ended with {done.returncode}.")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
