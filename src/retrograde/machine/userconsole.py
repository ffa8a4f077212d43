"""Where a user's command line puts what the machine writes.

A recording keeps the console and the text of other ports, and not where they went (see
userserial). Files that were asked for are written all the same, as copies; a program that
takes QEMU's place must also show them where that was asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
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
class AskedPlace:
    """Where a port's output was asked for, as far as we put it there."""

    terminal: StdioConsole | None = None
    files: tuple[FileCopy, ...] = ()


def asked_places(arguments: Sequence[str]) -> dict[str, AskedPlace]:
    """Return where QEMU would put what the machine writes, by port (`MachineSpec.ports`)."""
    options = [
        (word.removeprefix("-").removeprefix("-"), value)
        for word, value in itertools.pairwise([*arguments, ""])
        if word.startswith("-")
    ]
    given: dict[str, list[str]] = {}
    for name, value in options:
        given.setdefault(name, []).append(value)
    chardevs = given.get("chardev", [])
    return {port: _place(value, chardevs) for port, value in _backends(given).items()}


def _backends(given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the backend of each port, as -serial names them."""
    found: dict[str, str] = {}
    serials = given.get("serial", [])
    for number, value in enumerate(serials):
        if value not in ("none", "null"):
            found[f"serial{number}" if "console" in found else "console"] = value
    if not serials and "nographic" in given and "nodefaults" not in given:
        found["console"] = "mon:stdio"
    for value in given.get("debugcon", []):
        found["debugcon"] = value
    for value in given.get("device", []):
        device = dict(split(value, "driver"))
        if device.get("driver") == "isa-debugcon":
            found["debugcon"] = f"chardev:{device.get('chardev')}"
    for value in given.get("semihosting-config", []):
        if chardev := dict(split(value, "enable")).get("chardev"):
            found["semihosting"] = f"chardev:{chardev}"
    return found


def _place(port: str, chardevs: Sequence[str]) -> AskedPlace:
    backend = port.removeprefix("mon:")
    if backend == "stdio":
        # "mon:" takes Ctrl-C from us and gives it to the guest (chardev/char.c).
        shared = port.startswith("mon:")
        return AskedPlace(StdioConsole(signals=not shared, escapes=shared))
    if backend.startswith("file:"):
        return AskedPlace(files=(_copy(backend.removeprefix("file:")),))
    for given in (dict(split(text, "backend")) for text in chardevs):
        if backend == f"chardev:{given.get('id')}":
            return _of_chardev(given)
    return AskedPlace()


def _of_chardev(given: dict[str, str]) -> AskedPlace:
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
    return AskedPlace(terminal, tuple(files))


def _copy(name: str, append: str = "off") -> FileCopy:
    return FileCopy(Path(name).absolute(), append not in _OFF)
