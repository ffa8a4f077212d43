"""The client's break- and watchpoints, and how the timeline is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from retrograde.machine.probe_page import PAGE_BYTES
from retrograde.machine.probe_request import LAZY, PCS, Access, Check
from retrograde.timeline.search import Hit
from retrograde.timeline.timeline import Space, Timeline
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
    """What the client asked for, and what of it the timeline has been told."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._points: dict[tuple[Kind, int, int, Space], Point] = {}
        self._breaks: dict[int, list[Point]] = {}
        self._armed: dict[_Wish, int] = {}

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

    def clear(self) -> None:
        """Remove all points, here and in the timeline."""
        self._points.clear()
        self._group()
        self.arm(lambda _number: None)

    @property
    def watches(self) -> frozenset[Point]:
        """The watchpoints."""
        return frozenset(point for point in self if not point.is_break)

    def breaks_at(self, pc: int) -> list[Point]:
        """Return the breakpoints at a linear address."""
        return self._breaks.get(pc, [])

    def is_decided(self, pc: int) -> bool:
        """Whether the timeline, as it was armed, stops at `pc` only where a condition holds."""
        return any(wish.address == pc and wish.checks for wish in self._armed)

    def arm(self, name: RegisterName) -> None:
        """Make the timeline's break- and watchpoints these; `name` names registers."""
        wishes = set(self._wishes(name))
        for wish in self._armed.keys() - wishes:
            self._timeline.remove(self._armed.pop(wish))
        for wish in wishes - self._armed.keys():
            self._armed[wish] = wish.tell(self._timeline)

    def _wishes(self, name: RegisterName) -> Iterator[_Wish]:
        for point in self.watches:
            yield _Wish(point.address, point.length, point.space, _ACCESS[point.kind])
        for pc, points in self._breaks.items():
            checks: list[Check | None] = []
            if all(point.conditions for point in points):
                checks = [_check_of(one, name) for point in points for one in point.conditions]
            told = tuple(check for check in checks if check)
            yield _Wish(pc, checks=told if len(told) == len(checks) else ())

    def _group(self) -> None:
        self._breaks = {}
        for point in self:
            if point.is_break:
                self._breaks.setdefault(point.address, []).append(point)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the timeline is told: a watchpoint, or with no `access` a breakpoint."""

    address: int
    length: int = 1
    space: Space = "virtual"
    access: Access | None = None
    checks: tuple[Check, ...] = ()

    def tell(self, timeline: Timeline) -> int:
        if self.access is None:
            return timeline.add_breakpoint(self.address, checks=self.checks)
        return timeline.add_watchpoint(self.address, self.length, self.access, self.space)


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
