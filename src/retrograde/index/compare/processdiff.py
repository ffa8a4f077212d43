"""Where a process of one run parts from that of the same name in another.

What each ran in user mode is compared instruction by instruction, thread by thread, from the
first of its program on. What the kernel does in between, when it does so, and where it put code
and stacks, is left out. Both recordings are replayed once, a stretch of each in turn.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from retrograde.errors import UsageError
from retrograde.index.compare.causes import Causes, Side
from retrograde.index.compare.codepages import Addresses, CodePages
from retrograde.index.compare.lane import FARTHEST, Cause, Kind, Lane, Positions
from retrograde.index.compare.rejoin import Way, rejoin
from retrograde.index.compare.usercode import UserCode
from retrograde.index.questions.processes import NAME_BYTES, Named, Processes, Program, Span, Thread
from retrograde.index.symbols.symbols import Symbols
from retrograde.position import format_position
from retrograde.recording.bundle import Recording
from retrograde.timeline.pages import PAGE
from retrograde.timeline.timeline import Timeline
from retrograde.timeline.trace import LONGEST

Progress = Callable[[str], None]
Pair = tuple[int, int]

Past: TypeAlias = Literal["inputs", "threads"]
"""Differences that are passed over when that is asked for."""

_KINDS: Final[Mapping[Past, frozenset[Kind]]] = {
    "inputs": frozenset({"call", "input"}),
    "threads": frozenset({"thread"}),
}

_NUMBERED: Final = re.compile(r"(.+)#(\d{1,9})", re.DOTALL)
_TOLD: Final = 8
"""Processes that a refusal lists."""


@dataclass(frozen=True)
class Parting:
    """Two runs of a thread do not go on alike.

    `count` instructions of it were the same, or passed over, before. `positions` and `addresses`
    are those of the next instruction in each, None where the run of it ends; `before` are the
    positions of the last common one, None where there is none. `met` says how many instructions
    of each come until they go on alike, None if they were not seen to. `symbols` name the
    addresses where that is known. `registers` are those that differ before the last common
    instruction, other than by where things were mapped: name, and value in each.
    """

    thread: Thread
    count: int
    positions: tuple[int | None, int | None]
    addresses: tuple[int | None, int | None]
    before: Pair | None
    cause: Cause
    met: Pair | None
    symbols: tuple[str | None, str | None] = (None, None)
    registers: Sequence[tuple[str, int, int]] = ()


@dataclass(frozen=True)
class Comparison:
    """What comparing a process in two recordings found.

    `programs` are the processes, `common` how many instructions both ran, `threads` how many
    threads either had. `passed` are differences that were passed over, `parting` is the first
    that was not, by the first recording's positions.
    """

    programs: tuple[Program, Program]
    common: int
    passed: Sequence[Parting]
    parting: Parting | None
    threads: int


async def compare_processes(
    known: tuple[Processes, Processes],
    both: tuple[Timeline, Timeline],
    name: str,
    *,
    past: Collection[Past] = (),
    progress: Progress = lambda _text: None,
) -> Comparison:
    """Compare what the process `name` did in two recordings; `name#2` is the second of a name.

    Differences that the host's clock made are passed over; with "inputs" in `past` also those by
    other inputs, with "threads" those by what other threads wrote. Raises UsageError where there
    is no such process, or more than one. The cursors move.
    """
    sides = []
    for processes, timeline in zip(known, both, strict=True):
        progress(f"looking for {name} in {timeline.recording.name}")
        program = choose(name, await processes.named(timeline), timeline.recording)
        ran = await asyncio.to_thread(processes.ran, program)
        sides.append(Side(timeline, ran, UserCode(timeline)))
    return await _Comparing((sides[0], sides[1]), past, progress).run()


def choose(name: str, named: Sequence[Named], recording: Recording) -> Program:
    """Return the program that a name is of; raises UsageError for none, and for several."""
    numbered = _NUMBERED.fullmatch(name)
    plain, number = (numbered[1], int(numbered[2])) if numbered else (name, 0)
    if number and any(one.name == name[:NAME_BYTES] for one in named):
        plain, number = name, 0
    found = [one.program for one in named if one.name == plain[:NAME_BYTES]]
    if not found:
        others = list(dict.fromkeys(one.name for one in named))
        told = ", ".join(others[:_TOLD]) + ", ..." * (len(others) > _TOLD)
        raise UsageError(
            f"{recording.name} has no process {plain}.",
            f"Its processes are: {told}." if told else "None began a program.",
        )
    if number > len(found) or (not number and len(found) > 1):
        began = ", ".join(format_position(one.position) for one in found[:_TOLD])
        raise UsageError(
            f"{recording.name} has {len(found)} process{'es' * (len(found) > 1)} {plain}, begun "
            f"at {began}{', ...' * (len(found) > _TOLD)}.",
            f"Say which: --process '{plain}#1' is the first.",
        )
    return found[max(0, number - 1)]


class _Comparing:
    """Two processes, and what was found of them so far."""

    def __init__(
        self, sides: tuple[Side, Side], past: Collection[Past], progress: Progress
    ) -> None:
        self._sides = sides
        self._pages = CodePages()
        self._lanes: defaultdict[Thread, Lane] = defaultdict(lambda: Lane(self._pages))
        self._causes = Causes(sides, self._pages)
        self._passable = {"clock"}.union(*(_KINDS[one] for one in past))
        self._progress = progress
        self._read, self._come_to = [0, 0], [0, 0]
        self._ended = [False, False]
        self._passed: list[Parting] = []
        self._partings: list[Parting] = []

    async def run(self) -> Comparison:
        """Compare until both end, or it is known where they part first."""
        streams = [_stretches(side) for side in self._sides]
        while needed := [number for number in (0, 1) if self._is_needed(number)]:
            number = min(needed, key=self._read.__getitem__)
            await self._take(number, await anext(streams[number], None))
            self._progress(f"compared {min(self._read):_} instructions")
        first = min(self._partings, key=_place, default=None)
        return Comparison(
            programs=(self._sides[0].ran.program, self._sides[1].ran.program),
            common=sum(lane.common.count for lane in self._lanes.values()),
            passed=sorted(self._passed, key=_place),
            parting=await self._described(first) if first else None,
            threads=len(self._lanes),
        )

    def _is_needed(self, number: int) -> bool:
        """Whether what comes next in a run may tell of an earlier parting."""
        if self._ended[number]:
            return False
        if not self._partings:
            return True
        limit = min(map(_place, self._partings))
        if number == 0 and self._come_to[0] < limit:
            return True
        for lane in self._lanes.values():
            ours = lane.runs[0]
            if not lane.is_parted and len(ours) and ours.positions[0] < limit:
                is_waited_for = number == 1 or lane.differs
                if is_waited_for and len(lane.runs[number]) < FARTHEST:
                    return True
        return False

    async def _take(self, number: int, stretch: Stretch | None) -> None:
        if stretch is None:
            self._ended[number] = True
            for lane in self._lanes.values():
                lane.runs[number].ended = True
        else:
            self._come_to[number] = stretch.stop
            for thread, addresses, positions in stretch.pieces:
                self._read[number] += len(addresses)
                lane = self._lanes[thread]
                lane.runs[1 - number].ended = self._ended[1 - number]
                if not lane.is_parted:
                    lane.runs[number].push(addresses, positions)
        for thread, lane in list(self._lanes.items()):
            await self._advance(thread, lane)

    async def _advance(self, thread: Thread, lane: Lane) -> None:
        while not lane.is_parted:
            following = await asyncio.to_thread(lane.advance)
            if following is None:
                if any(len(run) for run in lane.runs) and self._has_ended(thread, lane):
                    self._part(thread, lane, Cause("end", "one of them ends"), None)
                return
            if self._pages.may_be(*following) and await self._is_same_code(lane, following):
                self._pages.learn(*following)
                lane.skip((0, 0))
                continue
            if not lane.sees_enough:
                return
            met = await self._meet(lane)
            cause = await self._causes.of(lane, thread)
            self._part(thread, lane, cause, met)

    async def _meet(self, lane: Lane) -> Pair | None:
        """Return after how many instructions of each both go on alike, if that is seen."""
        for most in (1 << 12, 1 << 16, FARTHEST):
            ways = []
            for side, run in zip(self._sides, lane.runs, strict=True):
                addresses, positions = run.addresses[:most], run.positions[:most]
                levels = await side.code.levels(addresses, positions)
                is_all = run.ended and len(run) <= most
                ways.append(Way(addresses, levels, is_all))
            ours, theirs = ways
            theirs = theirs._replace(addresses=self._pages.as_ours(theirs.addresses))
            met = await asyncio.to_thread(rejoin, ours, theirs)
            if met or all(len(run) <= most for run in lane.runs):
                # Other code in the same place is no place to go on from.
                return met if met and any(met) else None
        return None

    def _has_ended(self, thread: Thread, lane: Lane) -> bool:
        """Whether the thread ended in a run, and not the recording."""
        for run, side in zip(lane.runs, self._sides, strict=True):
            if run.ended and not len(run):
                was_there = any(span.thread == thread for span in side.ran.spans)
                return (thread if was_there else ()) in side.ran.ended
        return False

    def _part(self, thread: Thread, lane: Lane, cause: Cause, met: Pair | None) -> None:
        """Take down a difference; pass it over if it is one of those."""
        heads = [
            (int(run.positions[0]), int(run.addresses[0])) if len(run) else (None, None)
            for run in lane.runs
        ]
        before = lane.common.positions[:, -1].tolist() if lane.common.count else None
        parting = Parting(
            thread=thread,
            count=lane.count,
            positions=(heads[0][0], heads[1][0]),
            addresses=(heads[0][1], heads[1][1]),
            before=(before[0], before[1]) if before else None,
            cause=cause,
            met=met,
        )
        if met and cause.kind in self._passable:
            self._passed.append(parting)
            lane.pass_over(met, cause)
        else:
            self._partings.append(parting)
            lane.is_parted = True

    async def _described(self, parting: Parting) -> Parting:
        """Return a parting with the names of its code, and the registers before it."""
        symbols = []
        for side, position, address in zip(
            self._sides, parting.positions, parting.addresses, strict=True
        ):
            known = await asyncio.to_thread(Symbols.of, side.timeline.recording)
            place = position or 0, side.ran.program.space
            symbols.append(None if address is None else known.lookup(address, *place))
        registers = await self._causes.registers(parting.before) if parting.before else []
        return replace(parting, symbols=(symbols[0], symbols[1]), registers=registers)

    async def _is_same_code(self, lane: Lane, addresses: Pair) -> bool:
        """Whether the pages of two addresses hold the same."""
        pages = []
        for side, run, address in zip(self._sides, lane.runs, addresses, strict=True):
            await side.timeline.seek(int(run.positions[0]))
            pages.append(await side.timeline.read(address & -PAGE, PAGE))
        return pages[0] == pages[1]


@dataclass(frozen=True)
class Stretch:
    """What the threads of a process ran up to the position `stop`: addresses and positions."""

    stop: int
    pieces: Sequence[tuple[Thread, Addresses, Positions]]


async def _stretches(side: Side) -> AsyncIterator[Stretch]:
    """Yield what a process ran, stretch by stretch."""
    spans = list(side.ran.spans)
    while spans:
        start = spans[0].start
        limit = start + LONGEST
        inside = [span for span in spans if span.start < limit]
        spans = spans[len(inside) :]
        if inside[-1].stop > limit:
            spans.insert(0, inside[-1]._replace(start=limit))
            inside[-1] = inside[-1]._replace(stop=limit)
        found = await side.timeline.addresses(start, inside[-1].stop)
        parts: defaultdict[Thread, list[Span]] = defaultdict(list)
        for span in inside:
            parts[span.thread].append(span)
        pieces = []
        for thread, own in parts.items():
            positions = np.concatenate([np.arange(span.start, span.stop) for span in own])
            pieces.append((thread, found[positions - start], positions))
        yield Stretch(inside[-1].stop, pieces)


def _place(parting: Parting) -> int:
    """Return where a parting is in the first recording."""
    if parting.positions[0] is not None:
        return parting.positions[0]
    return parting.before[0] if parting.before else 0
