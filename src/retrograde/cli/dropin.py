"""`retrograde-qemu`: stands in for qemu-system-* and records what it runs.

For programs that start QEMU themselves (Makefiles, kunit.py): they are told that QEMU
is called `retrograde-qemu`, or find a link to it called `qemu-system-aarch64` on PATH.
Console, exit status and answers to questions are QEMU's own.

==========================  ===================================================
`RETROGRADE_OUTPUT`         directory the recordings go to (default: the current)
`--retrograde-output DIR`   the same, for one run
`RETROGRADE_TARGET`         target, unless the program is called qemu-system-TARGET
`--retrograde-target NAME`  the same, for one run
`RETROGRADE_QEMU`           the real QEMU (default: qemu-system-TARGET on PATH)
==========================  ===================================================
"""

from __future__ import annotations

import datetime
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from retrograde.cli import signals
from retrograde.cli.main import guarded
from retrograde.cli.output import note
from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.position import format_position

_OPTIONS = ("output", "target")


def main() -> None:
    """Run or record one QEMU; the entry point of the `retrograde-qemu` program."""
    guarded(lambda: stand_in(sys.argv[0], sys.argv[1:]))


def stand_in(called: str, words: Sequence[str]) -> int:
    """Do what the QEMU `called` so does with `words`, and return its exit status.

    Does not return when QEMU is only asked a question: then QEMU takes our place.
    """
    from retrograde.commandline.arguments import asks_only

    given, arguments = own_options(words)
    target = given.get("target") or _target_called(called) or os.environ.get("RETROGRADE_TARGET")
    target = target or "x86_64"
    program = _real_qemu(target, Path(called))
    if asks_only(arguments):
        os.execv(program, [program, *arguments])  # noqa: S606
    folder = given.get("output") or os.environ.get("RETROGRADE_OUTPUT") or "."
    return _record(Path(folder), arguments, target, program)


def own_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split `words` into our own options and the arguments for QEMU."""
    given: dict[str, str] = {}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        match = re.fullmatch(r"--retrograde-(\w+)(?:=(.*))?", word, re.DOTALL)
        if not match:
            rest.append(word)
            continue
        name, value = match[1], match[2] if match[2] is not None else next(left, "")
        if name not in _OPTIONS or not value:
            known = " and ".join(f"--retrograde-{option} VALUE" for option in _OPTIONS)
            raise UsageError(f"{word} is not understood.", f"There are {known}.")
        given[name] = value
    return given, rest


def _target_called(program: str) -> str:
    match = re.fullmatch(r"qemu-system-(\w+)", Path(program).name)
    return match[1] if match else ""


def _real_qemu(target: str, called: Path) -> str:
    """Return the path of QEMU; links to this program on PATH are passed over."""
    from retrograde.machine.qemu import install_hint

    name = os.environ.get("RETROGRADE_QEMU") or f"qemu-system-{target}"
    places = [Path()] if "/" in name else map(Path, os.get_exec_path())
    ourselves = called.resolve()
    for path in (place / name for place in places):
        if os.access(path, os.X_OK) and path.is_file() and path.resolve() != ourselves:
            return str(path)
    raise EnvironmentLacks(f"{name} is not installed.", install_hint(target))


def _record(folder: Path, arguments: list[str], target: str, program: str) -> int:
    from retrograde.cli.record import record_here
    from retrograde.machine.userconsole import asked_places

    stamp = datetime.datetime.now().astimezone().strftime("%Y%m%dT%H%M%S")
    output = folder / f"{target}-{stamp}-{os.getpid()}.retro"
    places = asked_places(arguments)
    recording = signals.run(
        record_here(output, arguments, places=places, as_qemu=True, target=target, program=program)
    )
    end = format_position(recording.end)
    note(f"recorded {recording.path}, {end} instructions")
    return recording.manifest.status
