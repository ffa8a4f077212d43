"""The serial ports and character devices of a user's command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from retrograde.errors import ArgumentRefused
from retrograde.machine.refusals import MONITOR, UNUSED_CHARDEV, refuse
from retrograde.recording.keyval import split
from retrograde.recording.machinespec import Option, Serial, Text


class UserSerial:
    """Collects ports and the backends they use; where output went is not kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._ports: list[Literal["console", "null", "none"]] = []
        self._chardevs: set[str] = set()
        self._used: set[str] = set()

    def serial(self, value: str) -> None:
        """Take in one -serial. The first one with somewhere to go is the console."""
        backend = value.removeprefix("mon:")
        if backend in ("none", "null"):
            self._ports.append("none" if backend == "none" else "null")
            return
        if backend.startswith("chardev:"):
            self._used.add(backend.removeprefix("chardev:"))
        if "console" in self._ports:
            self.notes.append(f"-serial {value}: only the first serial port's output is kept")
            self._ports.append("null")
        else:
            self._ports.append("console")

    def chardev(self, value: str) -> None:
        """Take in one -chardev; a -serial or -mon must use it."""
        name = dict(split(value, "backend")).get("id", "")
        if not name:
            raise ArgumentRefused(f"-chardev {value} has no id.", "Add id=NAME.")
        self._chardevs.add(name)

    def mon(self, value: str) -> None:
        """Take in one -mon; only those for people can be done without."""
        given = dict(split(value, "chardev"))
        if given.get("mode", "readline") != "readline":
            refuse(f"-mon {value}", MONITOR)
        self._used.add(given.get("chardev", ""))
        self.notes.append(f"-mon {value} is left out: there is no monitor while recording")

    def monitor(self, value: str) -> None:
        """Take in one -monitor."""
        if value.startswith("chardev:"):
            self._used.add(value.removeprefix("chardev:"))
        if value not in ("none", "null"):
            self.notes.append(f"-monitor {value} is left out: there is none while recording")

    def output_only(self, option: str, value: str) -> Option:
        """Return -parallel or -debugcon, which go nowhere: nothing comes in from them."""
        if value.startswith("chardev:"):
            self._used.add(value.removeprefix("chardev:"))
        if value == "none" and option == "parallel":
            return Text(option, "none")
        if value != "null":
            self.notes.append(f"-{option} {value}: its output is not kept")
        return Text(option, "null")

    def options(self, *, has_default: bool) -> Iterator[Option]:
        """Yield the ports; the board's default one when the user named none."""
        if unused := self._chardevs - self._used:
            refuse(f"-chardev id={min(unused)}", UNUSED_CHARDEV)
        if missing := {name for name in self._used if name not in self._chardevs}:
            raise ArgumentRefused(
                f"There is no -chardev with id={min(missing)}.", "Check the arguments."
            )
        if not self._ports and has_default:
            yield Serial("console")
        yield from map(Serial, self._ports)
