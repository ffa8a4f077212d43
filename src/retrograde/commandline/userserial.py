"""The serial ports and character devices of a user's command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from retrograde.commandline.refusals import NO_MONITOR
from retrograde.errors import ArgumentRefused
from retrograde.recording.keyval import split
from retrograde.recording.machinespec import Option, Serial, Text

_HERE = frozenset({"stdio", "file", "vc", "null"})
"""Backends that no other program is connected to; what the rest lead to stays unconnected."""

_NOWHERE = "nothing is connected to it; what the port writes is in the recording"


class UserSerial:
    """Collects ports and the backends they use; where output went is not kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._ports: list[Literal["console", "text", "null", "none"]] = []
        self._chardevs: dict[str, str] = {}
        self._used: set[str] = set()
        self._destinations: list[str] = []

    def serial(self, value: str) -> None:
        """Take in one -serial. The first one with somewhere to go is the console.

        All that go somewhere are kept, the others as text with its positions.
        """
        backend = value.removeprefix("mon:")
        if backend in ("none", "null"):
            self._ports.append("none" if backend == "none" else "null")
            return
        self.use(backend)
        self._ports.append("text" if "console" in self._ports else "console")
        self._destinations.append(value)

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
        self.use(value)
        if value not in ("none", "null"):
            self.notes.append(f"-monitor {value} is left out: {NO_MONITOR}")

    def parallel(self, value: str) -> Option:
        """Return -parallel, which goes nowhere: nothing comes in from it."""
        self.use(value)
        if value not in ("none", "null"):
            self.notes.append(f"-parallel {value}: its output is not kept")
        return Text("parallel", "none" if value == "none" else "null")

    def debugcon(self, value: str) -> Option:
        """Return -debugcon, whose text is kept, wherever else it goes."""
        self.use(value)
        return Text("debugcon", "kept")

    def options(self, *, has_default: bool) -> Iterator[Option]:
        """Yield the ports; the board's default one when the user named none."""
        if missing := {name for name in self._used if name not in self._chardevs}:
            raise ArgumentRefused(
                f"There is no -chardev with id={min(missing)}.", "Check the arguments."
            )
        for value in self._destinations:
            if self._backend(value) not in _HERE:
                self.notes.append(f"-serial {value}: {_NOWHERE}")
        if not self._ports and has_default:
            yield Serial("console")
        yield from map(Serial, self._ports)

    def use(self, value: str) -> None:
        """Note that an option names a character device, if it does."""
        if value.startswith("chardev:"):
            self._used.add(value.removeprefix("chardev:"))

    def _backend(self, value: str) -> str:
        """Return the kind of backend behind the value of a -serial."""
        kind, _, rest = value.removeprefix("mon:").partition(":")
        return self._chardevs[rest] if kind == "chardev" else kind
