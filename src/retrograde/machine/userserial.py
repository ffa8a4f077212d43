"""The serial ports and character devices of a user's command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from retrograde.errors import ArgumentRefused
from retrograde.machine.refusals import NO_MONITOR
from retrograde.recording.keyval import split
from retrograde.recording.machinespec import Option, Serial, Text

_HERE = frozenset({"stdio", "file", "vc", "null"})
"""Backends that no other program is connected to; what the rest lead to stays unconnected."""

_NOWHERE = "nothing is connected to it; the console is in the recording"


class UserSerial:
    """Collects ports and the backends they use; where output went is not kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._ports: list[Literal["console", "null", "none"]] = []
        self._chardevs: dict[str, str] = {}
        self._used: set[str] = set()
        self._console = ""

    def serial(self, value: str) -> None:
        """Take in one -serial. The first one with somewhere to go is the console."""
        backend = value.removeprefix("mon:")
        if backend in ("none", "null"):
            self._ports.append("none" if backend == "none" else "null")
            return
        self._use(backend)
        if "console" in self._ports:
            self.notes.append(f"-serial {value}: only the first serial port's output is kept")
            self._ports.append("null")
        else:
            self._ports.append("console")
            self._console = value

    def chardev(self, value: str) -> None:
        """Take in one -chardev, which matters as far as a port uses it."""
        given = dict(split(value, "backend"))
        if not given.get("id"):
            raise ArgumentRefused(f"-chardev {value} has no id.", "Add id=NAME.")
        self._chardevs[given["id"]] = given.get("backend", "")

    def mon(self, value: str) -> None:
        """Take in one -mon."""
        self._used.add(dict(split(value, "chardev")).get("chardev", ""))
        self.notes.append(f"-mon {value} is left out: {NO_MONITOR}")

    def monitor(self, value: str) -> None:
        """Take in one -monitor."""
        self._use(value)
        if value not in ("none", "null"):
            self.notes.append(f"-monitor {value} is left out: {NO_MONITOR}")

    def output_only(self, option: str, value: str) -> Option:
        """Return -parallel or -debugcon, which go nowhere: nothing comes in from them."""
        self._use(value)
        if value == "none" and option == "parallel":
            return Text(option, "none")
        if value != "null":
            self.notes.append(f"-{option} {value}: its output is not kept")
        return Text(option, "null")

    def options(self, *, has_default: bool) -> Iterator[Option]:
        """Yield the ports; the board's default one when the user named none."""
        if missing := {name for name in self._used if name not in self._chardevs}:
            raise ArgumentRefused(
                f"There is no -chardev with id={min(missing)}.", "Check the arguments."
            )
        if self._console and self._backend(self._console) not in _HERE:
            self.notes.append(f"-serial {self._console}: {_NOWHERE}")
        if not self._ports and has_default:
            yield Serial("console")
        yield from map(Serial, self._ports)

    def _use(self, value: str) -> None:
        if value.startswith("chardev:"):
            self._used.add(value.removeprefix("chardev:"))

    def _backend(self, value: str) -> str:
        """Return the kind of backend behind the value of a -serial."""
        kind, _, rest = value.removeprefix("mon:").partition(":")
        return self._chardevs[rest] if kind == "chardev" else kind
