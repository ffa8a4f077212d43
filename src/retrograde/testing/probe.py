"""What the probe would have seen of a model execution."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.probe.moments import Kept
from retrograde.machine.probe.page import (
    CHANGE,
    MOMENT,
    MOST_BYTES,
    NOWHERE,
    PAGE_BYTES,
    RECORD,
    Feature,
    RecordFlag,
)
from retrograde.machine.probe.request import ACCESSES, Breakpoint, Condition, Memory, Watch
from retrograde.testing.cpu import NAMES, PC, SP, Access, Execution

HITS_KEPT = 64
"""So few that searches meet an overflow often."""

MOMENTS_KEPT = 8


class ModelProbe:
    """The interface of machine.probe.Probe over an execution already known."""

    argument = ""
    fd = -1

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._writes = _records([one for one in execution.accesses if one.is_store])
        self._changes = _changes(execution)
        self._armed: dict[str, Any] = {}
        self._active: dict[str, Any] = {}
        self._seen = (0, 0)

    def arm(
        self,
        *,
        breakpoints: Iterable[Breakpoint] = (),
        watches: Iterable[Watch] = (),
        registers: Sequence[str] = (),
        writes: bool = False,
        steps: bool = False,
        moments: Kept | None = None,
        memory: Memory | None = None,
        coverage: Feature = Feature(0),  # noqa: B008 - a constant
        span: tuple[int, int],
    ) -> None:
        """Say what to record, from the next load on."""
        assert not steps, "the model's registers tell its pc"
        assert not coverage, "the model has one vector, and no more to tell"
        self._armed = {
            "breakpoints": tuple(breakpoints),
            "watches": tuple(watches),
            "registers": tuple(registers),
            "writes": writes or memory is not None,
            "places": memory.places if memory else (),
            "moments": moments,
            "span": span,
        }
        self._active = {}

    def disarm(self) -> None:
        """Record nothing from the next load on."""
        self._armed = self._active = {}

    def begin(self, position: int) -> None:
        """Let what was armed take effect: a state was loaded."""
        self._active = self._armed
        self._seen = (position, position)

    def close(self) -> None:
        """Do nothing: there is no memory to give back."""

    @contextlib.contextmanager
    def paused(self) -> Iterator[bool]:
        """See nothing until the next load."""
        self._active = {}
        yield True

    def drop_code(self) -> bool:
        """Do nothing: the model keeps code for good."""
        return False

    def advance(self, position: int) -> None:
        """All instructions before `position` have begun."""
        self._seen = (self._seen[0], position)

    def hits(self) -> NDArray[np.void]:
        """Return the newest of the breakpoints reached and watched accesses."""
        return self._all_hits()[-HITS_KEPT:]

    def kept_all(self, _kind: str) -> bool:
        """Whether `hits` are all there were."""
        return len(self._all_hits()) <= HITS_KEPT

    def writes(self) -> NDArray[np.void]:
        """Return the stores."""
        return self._inside(self._writes)

    def changes(self) -> NDArray[np.void]:
        """Return the register changes, beginning with what the registers are.

        Behind the registers come the places of pages: where they are mapped, one to one.
        """
        first, stop = self._span()
        armed = len(self._active["registers"])
        assert armed in (0, len(NAMES)), "the model logs all registers or none"
        registers = self._execution.registers[self._execution.last[first]][:armed]
        start = [*registers, *self._active["places"]] if first < stop else []
        begin = [_change(first, number, value) for number, value in enumerate(start)]
        later = self._inside(self._changes)
        return np.concatenate([np.array(begin, CHANGE), later[later["reg"] < armed]])

    def moments(self) -> tuple[NDArray[np.void], NDArray[np.uint8], NDArray[np.void]]:
        """Return what the machine was like at the first hits, and at their stack pointers."""
        first, stop = self._span()
        chosen = self._active["moments"].chosen
        hits = (hit for stop_at in self._active["breakpoints"] for hit in self._reached(stop_at))
        reached = sorted(at for at, order, _ in hits if order == 0.5 and first <= at < stop)
        if chosen:
            wanted = {at for hit in reached for at in (hit, hit + 1) if at in chosen}
            reached = sorted(at for at in wanted if at <= min(stop, self._execution.end - 1))
        rows: list[tuple[object, ...]] = []
        registers, pages = b"", list[bytes]()
        for position in reached[:MOMENTS_KEPT]:
            moment = self._execution.last[position]
            general = self._execution.registers[moment]
            page = general[SP] - general[SP] % PAGE_BYTES
            held = [(0, 0)] * MOMENT["page"].shape[0]
            held[0] = (page, len(pages))
            before, after = (self._pc(at) for at in (position - 1, position + 1))
            rows.append((position, general[PC], before, after, 1, held))
            registers += b"".join(value.to_bytes(8, "little") for value in general[:PC])
            ram = self._execution.ram_at(moment)
            pages.append(bytes(ram[page : page + PAGE_BYTES]).ljust(PAGE_BYTES, b"\0"))
        return (
            np.array(rows, MOMENT),
            np.frombuffer(registers, np.uint8),
            np.array(pages, f"V{PAGE_BYTES}"),
        )

    def _pc(self, position: int) -> int:
        """Return the pc at a position, NOWHERE where nothing begins."""
        if not 0 <= position < self._execution.end:
            return NOWHERE
        return self._execution.registers[self._execution.last[position]][PC]

    def facts(self) -> SimpleNamespace:
        """Return what the timeline asks of ProbeFacts."""
        return SimpleNamespace(registers_exact=True, deliveries_missed=0)

    def _inside(self, records: NDArray[np.void]) -> NDArray[np.void]:
        first, stop = self._span()
        chosen: NDArray[np.void] = records[
            (records["position"] >= first) & (records["position"] < stop)
        ]
        return chosen

    def _span(self) -> tuple[int, int]:
        assert self._active, "armed without a load since"
        start, stop = self._active["span"]
        return max(start, self._seen[0]), min(stop, self._seen[1])

    def _all_hits(self) -> NDArray[np.void]:
        first, stop = self._span()
        found = [hit for stop_at in self._active["breakpoints"] for hit in self._reached(stop_at)]
        for access in self._execution.accesses:
            if any(_concerns(watch, access) for watch in self._active["watches"]):
                found.append((access.position, 1 - access.pushed, access))
        found = [one for one in found if first <= one[0] < stop]
        found.sort(key=lambda one: one[:2])
        return _records([one[2] for one in found])

    def _reached(self, stop: Breakpoint) -> Iterable[tuple[int, float, Access]]:
        """Find where a breakpoint is reached; begun in vain does not count but is told."""
        execution = self._execution
        for position, moment in enumerate(execution.last):
            registers = execution.registers[moment]
            assert not stop.checks, "the model has none of gdb's conditions"
            if registers[PC] == stop.pc and all(_holds(c, registers) for c in stop.conditions):
                yield position, 0.5, Access(position, stop.pc, -1, 0, 0, is_store=False)
        for position, pc in execution.attempts:
            if pc == stop.pc:
                yield position, 0.25, Access(position, pc, -2, 0, 0, is_store=False)


def _concerns(watch: Watch, access: Access) -> bool:
    wanted = ACCESSES[watch.access] & (2 if access.is_store else 1)
    overlaps = access.address < watch.start + watch.length
    return bool(wanted) and overlaps and watch.start < access.address + access.size


def _holds(condition: Condition, registers: tuple[int, ...]) -> bool:
    assert isinstance(condition.operand, str), "the model has no conditions on memory"
    left, right = registers[NAMES.index(condition.operand)] & condition.mask, condition.value
    outcomes = {"==": left == right, "<": left < right, ">": left > right}
    outcomes |= {"!=": left != right, "<=": left <= right, ">=": left >= right}
    return outcomes[condition.comparison]


def _records(accesses: Sequence[Access]) -> NDArray[np.void]:
    rows = []
    for one in accesses:
        flags = 0 if one.address == -1 else RecordFlag.ATTEMPT
        if one.size:
            flags = RecordFlag.ACCESS | (RecordFlag.STORE if one.is_store else 0)
            flags |= RecordFlag.DELIVERY if one.pushed else 0
        address = max(0, one.address)
        data = list(one.value.to_bytes(MOST_BYTES, "little"))
        row = (one.position, one.pc, address, address, _beyond(one), data, one.size, flags, 0)
        rows.append(row)
    return np.array(rows, RECORD)


def _beyond(access: Access) -> int:
    """Return where what is in the next page lies; all memory of the model is in one piece."""
    border = -(-(access.address + 1) // PAGE_BYTES) * PAGE_BYTES
    return border if access.address + access.size > border else NOWHERE


def _changes(execution: Execution) -> NDArray[np.void]:
    rows = []
    before = execution.registers[execution.last[0]]
    for position, moment in enumerate(execution.last):
        now = execution.registers[moment]
        rows += [_change(position, n, now[n]) for n in range(len(NAMES)) if now[n] != before[n]]
        before = now
    return np.array(rows, CHANGE)


def _change(position: int, number: int, value: int) -> tuple[object, ...]:
    return (position, number, 0, 8, 0, value.to_bytes(16, "little"))
