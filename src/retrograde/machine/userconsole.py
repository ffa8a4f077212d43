"""Where a user's command line puts the first serial port, for those who stand in for QEMU.

A recording keeps the console and not where it went (see userserial); a program that
takes QEMU's place must still show it where it was asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.recording.keyval import split


@dataclass(frozen=True)
class StdioConsole:
    """On standard input and output.

    `signals`: Ctrl-C is a signal to us rather than typed at the guest. `escapes`:
    Ctrl-A is QEMU's own key.
    """

    signals: bool
    escapes: bool


@dataclass(frozen=True)
class FileConsole:
    """Written to a file that is created or emptied."""

    path: Path


def asked_console(arguments: Sequence[str]) -> StdioConsole | FileConsole | None:
    """Return where QEMU would put the console; None for nowhere we could."""
    options = [
        (word.removeprefix("-").removeprefix("-"), value)
        for word, value in itertools.pairwise([*arguments, ""])
        if word.startswith("-")
    ]
    names = {name for name, _ in options}
    ports = [value for name, value in options if name == "serial"]
    console = next((port for port in ports if port not in ("none", "null")), None)
    if console is None and not ports and "nographic" in names and "nodefaults" not in names:
        console = "mon:stdio"
    if console is None:
        return None
    return _place(console, [value for name, value in options if name == "chardev"])


def _place(port: str, chardevs: Sequence[str]) -> StdioConsole | FileConsole | None:
    backend = port.removeprefix("mon:")
    if backend == "stdio":
        # "mon:" takes Ctrl-C from us and gives it to the guest (chardev/char.c).
        shared = port.startswith("mon:")
        return StdioConsole(signals=not shared, escapes=shared)
    if backend.startswith("file:"):
        return FileConsole(Path(backend.removeprefix("file:")).absolute())
    for given in (dict(split(text, "backend")) for text in chardevs):
        if backend != f"chardev:{given.get('id')}":
            continue
        if given.get("backend") == "stdio":
            return StdioConsole(given.get("signal") != "off", given.get("mux") == "on")
        if given.get("backend") == "file" and given.get("append", "off") == "off":
            return FileConsole(Path(given.get("path", "")).absolute())
    return None
