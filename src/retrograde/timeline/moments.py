"""Positions of which the pc, general registers and some pages are known, without a machine.

They are where searches have found something, and right behind that: what a debugger looks at
when it stops at one hit after the other. What else it asks for there a real machine is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from retrograde.machine.probe.moments import Kept
from retrograde.machine.probe.moments import Moment as Told
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.pages import PAGE

MOMENTS_KEPT = 1 << 13
SEEN_KEPT = 8
"""Pages looked at elsewhere that are kept at the next hits, too."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known at a position: `pc`, gdb's and linear, and perhaps a partial `g` packet.

    `before` is where the instruction before was translated, 0 where that is not known.
    """

    pc: int
    packet: bytes
    pages: dict[int, bytes] = field(default_factory=dict)
    before: int = 0

    def read(self, address: int, count: int) -> bytes | None:
        """Return virtual memory; None when not all of it is known."""
        data = b""
        while len(data) < count:
            at = (address + len(data)) % PAGE
            page = self.pages.get(address + len(data) - at)
            if page is None:
                return None
            data += page[at : at + count - len(data)]
        return data


class Moments:
    """The moments known, by position."""

    def __init__(self, view: MachineView, facts: LogFacts) -> None:
        self._view = view
        self._facts = facts
        self._known: dict[int, Moment] = {}
        self._seen: dict[int, None] = {}

    def get(self, position: int) -> Moment | None:
        """Return what is known at a position."""
        return self._known.get(position)

    def look_at(self, address: int) -> None:
        """Take note that a page was looked at, where it was not known."""
        page = address - address % PAGE
        self._seen.pop(page, None)
        self._seen[page] = None
        if len(self._seen) > SEEN_KEPT:
            self._seen.pop(next(iter(self._seen)))

    def kept(self, chosen: Iterable[int] = ()) -> Kept | None:
        """Return what the probe is to keep, at `chosen` positions only; None if it cannot."""
        view, told = self._view, self._view.told_at_hits
        if not told:
            return None
        return Kept(
            tuple(one.name for one in told),
            sum(one.size for one in told),
            len(view.general),
            view.ram,
            tuple(self._seen),
            tuple(sorted(chosen)),
        )

    def add(self, told: Iterable[Told], pcs: Mapping[int, int]) -> None:
        """Keep what the probe tells; `pcs` are linear addresses of hits, by position.

        Where gdb's pc is another, code has a segment with a base: not for us.
        """
        for one in told:
            if one.position not in pcs and self._facts.is_delivery(one.position):
                continue
            if pcs.get(one.position, one.pc) != one.pc:
                continue
            packet = self._view.partial(one.pc, one.registers)
            self._put(one.position, Moment(one.pc, packet, dict(one.pages), one.before))
            following = one.position + 1
            if one.after is not None and not self._facts.is_delivery(following):
                self._put(following, Moment(one.after, self._view.partial(one.after, b"")))

    def _put(self, position: int, moment: Moment) -> None:
        old = self._known.pop(position, None)
        self._known[position] = old if old and len(old.pages) > len(moment.pages) else moment
        if len(self._known) > MOMENTS_KEPT:
            self._known.pop(next(iter(self._known)))


def positions_of(hits: Sequence[int]) -> list[int]:
    """Return where a debugger stops for these hits: there, or when they have happened."""
    return sorted({at for hit in hits for at in (hit, hit + 1)})
