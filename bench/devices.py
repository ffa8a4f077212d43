"""The matrix of devices: what Linux uses in machines full of them, recorded, loaded, walked back.

    python bench/devices.py [GROUP...] [--output /var/tmp/devices] [--each] [--deadline 1200]

For each group of devices: recorded, replayed with the same console, loaded from two checkpoints
made while the devices are in use and run on from there with registers and RAM compared, and 200
steps back and forward amid their use. With --each every device has a machine for itself. Prints
the table of docs/matrix.md; results are kept in OUTPUT and used again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from retrograde.guests.devices import device_groups, devices_guest
from retrograde.machine.qemu import Qemu
from retrograde.verify.matrix import run_matrix
from retrograde.verify.matrixmodel import Cell, Subject

COLUMNS = ("record", "replay", "checkpoint", "middle", "breakpoint", "watchpoint")
MEMORY = 1 << 30
"""What a trial of a machine of 192 MB takes, about."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="*", choices=[*device_groups(), []])
    parser.add_argument("--output", type=Path, default=Path("build/devices"))
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--deadline", type=float, default=1200.0)
    options = parser.parse_args()
    chosen = {g: names for g, names in device_groups().items() if g in (options.group or [g])}
    parts = [
        (group, part)
        for group, names in chosen.items()
        for part in ([[name] for name in names] if options.each else [names])
    ]
    qemu = Qemu.find("x86_64")
    cells = asyncio.run(
        run_matrix(
            [_subject(qemu, group, part) for group, part in parts],
            cache=options.output,
            jobs=os.cpu_count() or 1,
            deadline=options.deadline,
            report=lambda subject, doing: print(f"{subject.board}: {doing or 'done'}", flush=True),
        )
    )
    print(f"\n| devices | {' | '.join(COLUMNS)} | quirks |\n|{'---|' * (len(COLUMNS) + 2)}")
    for (_group, part), cell in zip(parts, cells, strict=True):
        print(_row(part, cell))
    for cell in cells:
        if cell.failure:
            print(f"\n{cell.board}: {cell.sentence}\n{cell.failure.evidence}")
    raise SystemExit(any(cell.failure for cell in cells))


def _subject(qemu: Qemu, group: str, names: list[str]) -> Subject:
    guest = devices_guest(group, names)
    return Subject(
        target=qemu.target,
        board=f"{group} ({', '.join(names)})",
        guest=guest.name,
        program=str(qemu.path),
        version=qemu.full_version,
        qemu_sha256=qemu.digest,
        arguments=tuple(guest.qemu_args),
        files=tuple(str(path) for path in guest.files),
        start=guest.start,
        done=guest.done,
        operations=0,
        memory=MEMORY,
    )


def _row(names: list[str], cell: Cell) -> str:
    words = {"ok": "yes", "quirk": "yes, by the quirk", "no": "**no**", "skipped": "-", None: ""}
    found = (words[cell.outcome(name)] for name in COLUMNS)
    quirks = ", ".join(f"[{name}](quirks.md#{name})" for name in cell.quirks)
    return f"| {', '.join(names)} | {' | '.join(found)} | {quirks} |"


if __name__ == "__main__":
    main()
