"""The client's break- and watchpoints, and what a search is to look for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.machine.probe.page import PAGE_BYTES
from retrograde.machine.probe.request import LAZY, PCS, Access, Breakpoint, Check
from retrograde.timeline.reading import Space
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.stops import watch_of
from retrograde.wire.agent import Expression
from retrograde.wire.rsp_stop import StopReason

Kind = Literal[0, 1, 2, 3, 4]
"""The digit after Z: software and hardware breakpoint, write, read and access watch."""

RegisterName = Callable[[int], str | None]
"""The name of a register by its number, None for one that the probe does not see."""

_ACCESS: Final[dict[int, Access]] = {2: "w", 3: "r", 4: "rw"}
_REASON: Final = {
    0: StopReason.SOFTWARE_BREAK,
    1: StopReason.HARDWARE_BREAK,
    2: StopReason.WATCH,
    3: StopReason.READ_WATCH,
    4: StopReason.ACCESS_WATCH,
}

MAX_POINTS: Final = 4096
"""At once; gdb users have a handful, and each costs the probe time."""


@dataclass(frozen=True, slots=True)
class Point:
    """One break- or watchpoint. It counts when any of `conditions` holds, or there is none."""

    kind: Kind
    address: int
    length: int
    space: Space = "virtual"
    conditions: tuple[Expression, ...] = ()

    @property
    def is_break(self) -> bool:
        """Whether it stops at an instruction, not at accesses to memory."""
        return self.kind < 2

    @property
    def reason(self) -> StopReason:
        """What its stops are called."""
        return _REASON[self.kind]

    def seen_at(self, hit: Hit) -> int | None:
        """Return the first of this watchpoint's addresses that an access is to; None: to none.

        Of what an interrupt pushed it may not be known where it lies in physical memory: it
        then is held to be to what it could be, having the same place in its page.
        """
        if self.is_break or (self.kind != 4 and bool(hit.is_store) != (self.kind == 2)):
            return None
        if hit.address is None or hit.size is None:
            return None
        mine = range(self.address, self.address + self.length)
        if self.space == "virtual":
            first = max(hit.address, self.address)
            return first if first in mine and first < hit.address + hit.size else None
        if hit.placed:
            return min((at for at in hit.placed if at in mine), default=None)
        inside = {(hit.address + byte) % PAGE_BYTES for byte in range(hit.size)}
        return next((at for at in mine[:PAGE_BYTES] if at % PAGE_BYTES in inside), None)


class Points:
    """What the client asked for, and what a search is to look for."""

    def __init__(self) -> None:
        self._points: dict[tuple[Kind, int, int, Space], Point] = {}
        self._breaks: dict[int, list[Point]] = {}

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points.values())

    def __len__(self) -> int:
        return len(self._points)

    def insert(self, point: Point) -> None:
        """Add a point; one of the same kind and place is replaced, conditions and all."""
        self._points[point.kind, point.address, point.length, point.space] = point
        self._group()

    def remove(self, kind: Kind, address: int, length: int, space: Space) -> None:
        """Remove a point; nothing happens when there is none."""
        self._points.pop((kind, address, length, space), None)
        self._group()

    @property
    def watches(self) -> frozenset[Point]:
        """The watchpoints."""
        return frozenset(point for point in self if not point.is_break)

    def breaks_at(self, pc: int) -> list[Point]:
        """Return the breakpoints at a linear address."""
        return self._breaks.get(pc, [])

    def stops(self, name: RegisterName) -> Stops:
        """Return what to look for; `name` names registers.

        A breakpoint in it that has no checks may be one whose conditions the probe cannot
        check.
        """
        watches = (
            watch_of(one.address, one.length, _ACCESS[one.kind], physical=one.space == "physical")
            for one in self.watches
        )
        return Stops(
            tuple(
                self._breakpoint(pc, points, name) for pc, points in sorted(self._breaks.items())
            ),
            tuple(sorted(set(watches), key=lambda one: (one.start, one.length, one.access))),
        )

    def _breakpoint(self, pc: int, points: Sequence[Point], name: RegisterName) -> Breakpoint:
        checks: list[Check | None] = []
        if all(point.conditions for point in points):
            checks = [_check_of(one, name) for point in points for one in point.conditions]
        told = tuple(check for check in checks if check)
        return Breakpoint(pc, checks=told if len(told) == len(checks) else ())

    def _group(self) -> None:
        self._breaks = {}
        for point in self:
            if point.is_break:
                self._breaks.setdefault(point.address, []).append(point)


def _check_of(expression: Expression, name: RegisterName) -> Check | None:
    """Return a condition as the probe can check it, None when it cannot.

    Where flags are read a few hits are evaluated here sooner than a search in short blocks of
    code is done.
    """
    named = [(number, name(number)) for number in sorted(expression.registers)]
    names = tuple((number, known) for number, known in named if known is not None)
    if len(names) < len(named) or any(known in PCS | LAZY for _, known in names):
        return None
    return Check(expression, names)
