"""Where a user's command line puts the first serial port.

A recording keeps the console and not where it went (see userserial). Files that were asked
for are written all the same, as copies; a program that takes QEMU's place must also show it
where it was asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.recording.keyval import split

_OFF = ("off", "no", "false")


@dataclass(frozen=True)
class StdioConsole:
    """On standard input and output.

    `signals`: Ctrl-C is a signal to us rather than typed at the guest. `escapes`:
    Ctrl-A is QEMU's own key.
    """

    signals: bool
    escapes: bool


@dataclass(frozen=True)
class FileCopy:
    """A file that gets all of it; it is created, and emptied unless `append` is set."""

    path: Path
    append: bool = False


@dataclass(frozen=True)
class AskedConsole:
    """Where the console was asked for, as far as we put it there."""

    terminal: StdioConsole | None = None
    files: tuple[FileCopy, ...] = ()


def asked_console(arguments: Sequence[str]) -> AskedConsole:
    """Return where QEMU would put the console."""
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
        return AskedConsole()
    return _place(console, [value for name, value in options if name == "chardev"])


def _place(port: str, chardevs: Sequence[str]) -> AskedConsole:
    backend = port.removeprefix("mon:")
    if backend == "stdio":
        # "mon:" takes Ctrl-C from us and gives it to the guest (chardev/char.c).
        shared = port.startswith("mon:")
        return AskedConsole(StdioConsole(signals=not shared, escapes=shared))
    if backend.startswith("file:"):
        return AskedConsole(files=(_copy(backend.removeprefix("file:")),))
    for given in (dict(split(text, "backend")) for text in chardevs):
        if backend == f"chardev:{given.get('id')}":
            return _of_chardev(given)
    return AskedConsole()


def _of_chardev(given: dict[str, str]) -> AskedConsole:
    terminal = None
    files = []
    if given.get("backend") == "stdio":
        terminal = StdioConsole(
            given.get("signal") not in _OFF, given.get("mux", "off") not in _OFF
        )
    if given.get("backend") == "file" and given.get("path"):
        files.append(_copy(given["path"], given.get("append", "off")))
    if given.get("logfile"):
        files.append(_copy(given["logfile"], given.get("logappend", "off")))
    return AskedConsole(terminal, tuple(files))


def _copy(name: str, append: str = "off") -> FileCopy:
    return FileCopy(Path(name).absolute(), append not in _OFF)
