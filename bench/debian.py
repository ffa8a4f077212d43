"""Walk a real Debian, its root on a virtio disk, through every command, and time each.

    python bench/debian.py --output /var/tmp/debian

The recordings are kept in OUTPUT and used again. Each command must succeed and say what it is
to say; exit code 1 when one does not. Times are of whole processes, one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.guests.debian import SHIFT, debian_guest
from retrograde.recording.bundle import Recording

RETROGRADE = (sys.executable, "-c", "from retrograde.cli.main import main; main()")

VARIABLE = "SELECT address FROM symbols WHERE name = 'jiffies'"
"""Of the kernel's variables one that is written all the time."""


@dataclass
class Walk:
    """The commands done so far: what each is called, its seconds, and why it failed if it did."""

    rows: list[tuple[str, float, str]]

    def do(
        self,
        name: str,
        *words: str | Path,
        says: Callable[[str], bool] = bool,
        statuses: Sequence[int] = (0,),
    ) -> str:
        """Run `retrograde WORDS`, judge it and return what it printed."""
        began = time.monotonic()
        done = subprocess.run(
            [*RETROGRADE, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True
        )
        seconds, text = time.monotonic() - began, done.stdout.decode(errors="replace")
        trouble = ""
        if done.returncode not in statuses:
            trouble = f"exit code {done.returncode}: {done.stderr.decode()[-300:]}"
        elif not says(text):
            trouble = f"it says {text[:300]!r}"
        self.rows.append((name, seconds, trouble))
        print(f"{name:32} {seconds:8.1f} s  {trouble or 'right'}", flush=True)
        return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("debian"))
    parser.add_argument("--random", type=int, default=100, help="operations of verify")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    walk = Walk([])
    first, second = (options.output / f"{name}.retro" for name in ("first", "second"))
    for path in (first, second):
        _record(walk, path)
    recording = Recording.open(first)
    print(f"{recording.end:_} instructions, {recording.manifest.ram.bytes >> 20} MiB of RAM")
    _walk(walk, first, second, options.output, options.random)
    return int(any(trouble for _name, _seconds, trouble in walk.rows))


def _record(walk: Walk, path: Path) -> None:
    if path.is_dir():
        return
    words = debian_guest().qemu_args
    walk.do("record", "record", "-o", path, "--shift", str(SHIFT), "--", *words)


def _walk(walk: Walk, first: Path, second: Path, folder: Path, count: int) -> None:
    walk.do("replay", "replay", first, says=lambda text: "WORK-DONE" in text)
    look = ("--", "-batch", "-ex", "info registers rip", "-ex", "reverse-stepi 100")
    for name in ("debug, the first time", "debug again"):
        walk.do(name, "debug", first, "--at", "60%", *look, says=lambda text: "rip" in text)
    walk.do("verify --random", "verify", "--random", str(count), first)
    walk.do("index", "index", first)
    walk.do("index of the other run", "index", second)

    def many(text: str) -> bool:
        return int(json.loads(text)[0]["count_star()"]) > 1000

    query = ("query", first, "--format", "json")
    walk.do("query: all calls counted", *query, "SELECT count(*) FROM calls", says=many)
    named = "SELECT count(*) FROM functions WHERE name = 'vfs_read'"
    walk.do("query: calls of one function", *query, named, says=many)
    address = int(json.loads(walk.do("query: an address", *query, VARIABLE))[0]["address"])
    where = f"{address:#x}:8"
    for name in ("last-write", "origin"):
        walk.do(name, name, first, where, "--at", "60%")
    walk.do("diff", "diff", first, second, statuses=(0, 1))
    span = ("--from", "60%", "--to", "61%")
    walk.do("export", "export", first, "--perfetto", folder / "trace", *span, says=lambda _: True)
    (folder / "first.tar.zst").unlink(missing_ok=True)
    walk.do("pack", "pack", first, "-o", folder / "first.tar.zst")
    walk.do("info", "info", first)


if __name__ == "__main__":
    sys.exit(main())
