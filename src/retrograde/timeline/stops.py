"""The break- and watchpoints a user has set, by number. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from retrograde.errors import UsageError
from retrograde.machine.probe.request import PCS, Access, Breakpoint, Check, Condition, Watch
from retrograde.timeline.condition import parse_conditions
from retrograde.timeline.search import Stops

Conditions = str | Sequence[Condition]


class StopTable:
    """Numbered break- and watchpoints of a machine with certain registers."""

    def __init__(self, registers: Collection[str]) -> None:
        self._registers = registers
        self._stops: dict[int, Breakpoint | Watch] = {}
        self._next = 1

    def add_breakpoint(self, pc: int, conditions: Conditions, checks: Sequence[Check] = ()) -> int:
        """Add a breakpoint and return its number; raises UsageError."""
        if any(isinstance(one, Breakpoint) and one.pc == pc for one in self._stops.values()):
            raise UsageError(f"There is already a breakpoint at {pc:#x}.", "Remove it first.")
        if not 0 <= pc < 1 << 64:
            raise UsageError(f"{pc:#x} is not an address.", "Give a 64-bit number.")
        if isinstance(conditions, str):
            conditions = parse_conditions(conditions, self._registers)
        for condition in conditions:
            self._check(condition.operand)
        for check in checks:
            for _number, name in check.names:
                self._check(name)
        return self._add(Breakpoint(pc, tuple(conditions), tuple(checks)))

    def add_watchpoint(self, address: int, count: int, access: Access, *, physical: bool) -> int:
        """Add a watchpoint and return its number; raises UsageError."""
        return self._add(watch_of(address, count, access, physical=physical))

    def remove(self, number: int) -> None:
        """Remove one; raises UsageError when there is none."""
        if self._stops.pop(number, None) is None:
            raise UsageError(
                f"There is no break- or watchpoint {number}.", "Give the number adding it returned."
            )

    def armed(self) -> Stops:
        """Return all of them."""
        stops = self._stops.values()
        return Stops(
            tuple(stop for stop in stops if isinstance(stop, Breakpoint)),
            tuple(stop for stop in stops if isinstance(stop, Watch)),
        )

    def _add(self, stop: Breakpoint | Watch) -> int:
        number = self._next
        self._next += 1
        self._stops[number] = stop
        return number

    def _check(self, name: str | int) -> None:
        if isinstance(name, str) and (name in PCS or name not in self._registers):
            raise UsageError(
                f"The register {name!r} cannot be in a condition.",
                "It must be one QEMU lists, and not the program counter.",
            )


def watch_of(address: int, count: int, access: Access, *, physical: bool) -> Watch:
    """Return the watch of `count` bytes from `address`; raises UsageError when they wrap."""
    if count < 1 or address < 0 or address + count > 1 << 64:
        raise UsageError(
            f"{count} bytes from {address:#x} cannot be watched.",
            "Give a range of at least one byte that does not wrap.",
        )
    return Watch(address, count, access, physical=physical)
