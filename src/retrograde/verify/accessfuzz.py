"""Random watches on the guest `wide`, forward and back, beside what it really accesses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from retrograde.errors import Divergence
from retrograde.machine.probe.request import Access, Watch
from retrograde.timeline.lastwrite import last_write
from retrograde.timeline.search import Hit, Stops, hit_of
from retrograde.timeline.timeline import Timeline
from retrograde.verify.accesses import AROUND, Touch, Truth

_SIZES: Final = (1, 1, 2, 3, 4, 7, 8, 8, 9, 16, 24)
_ACCESSES: Final[tuple[Access, ...]] = ("r", "w", "rw")
_PAGE: Final = 4096


@dataclass(frozen=True)
class Case:
    """A watch on virtual memory from `first` to before `stop`, or on where that lies."""

    first: int
    stop: int
    access: Access
    is_physical: bool

    def concerns(self, touch: Touch) -> bool:
        """Whether some access is one that the watch is for."""
        kind = "w" if touch.is_store else "r"
        return kind in self.access and touch.overlaps(self.first, self.stop)


@dataclass
class Fuzz:
    """Compares answers of `timeline` with `truth`; all choices come from `seed`.

    Raises Divergence with the seed, the number of the case and what differs.
    """

    timeline: Timeline
    truth: Truth
    seed: int
    cases: int = 0
    hits: int = 0
    frames: dict[int, int] = field(default_factory=dict)
    """Physical addresses of the pages at the border."""

    async def run(self, count: int) -> None:
        """Do `count` cases."""
        dice = random.Random(self.seed)  # noqa: S311 - no secret
        await self.timeline.seek(self.truth.stop)
        for page in (self.truth.border - _PAGE, self.truth.border):
            place = await self.timeline.physical(page)
            self.frames[page] = page if place is None else place
        ways: tuple[Callable[[Case, random.Random], Awaitable[None]], ...] = (
            self._all_hits,
            self._forward,
            self._back,
            self._last_write,
            self._memory,
            self._trace,
        )
        for _ in range(count):
            case, way = self._case(dice), dice.choice(ways)
            try:
                await way(case, dice)
            except Divergence as error:
                where = f"{self.timeline.recording.name}, seed {self.seed}, case {self.cases}"
                what = f"{way.__name__[1:]} {case.access} {case.first:#x} to {case.stop:#x}"
                raise Divergence(f"{where} ({what}): {error.what}") from error
            self.cases += 1

    def _case(self, dice: random.Random) -> Case:
        """Choose part of what some instruction accesses, or what is half beside it."""
        touch, size = dice.choice(self.truth.touches), dice.choice(_SIZES)
        first = dice.randrange(touch.first - size + 1, touch.stop)
        is_physical = dice.random() < 0.3
        if is_physical:  # memory watched by its place lies in one page
            room = _PAGE - first % _PAGE
            size = min(size, room)
        return Case(first, first + size, dice.choice(_ACCESSES), is_physical)

    def _position(self, dice: random.Random) -> int:
        return dice.randrange(self.truth.start, self.truth.stop + 1)

    def _place(self, address: int) -> int:
        return self.frames[address & -_PAGE] + address % _PAGE

    def _watch(self, case: Case) -> Watch:
        start = self._place(case.first) if case.is_physical else case.first
        return Watch(start, case.stop - case.first, case.access, physical=case.is_physical)

    async def _all_hits(self, case: Case, dice: random.Random) -> None:
        """Look for all hits between two positions."""
        start, stop = sorted((self._position(dice), self._position(dice)))
        hits = await self.timeline.all_hits(Stops(watches=(self._watch(case),)), start, stop)
        self._compare(case, hits, start, stop)

    async def _forward(self, case: Case, dice: random.Random) -> None:
        """Run several times; each time it must move."""
        await self._runs(case, self._position(dice), forward=True)

    async def _back(self, case: Case, dice: random.Random) -> None:
        """Do the same the other way."""
        await self._runs(case, self._position(dice), forward=False)

    async def _runs(self, case: Case, here: int, *, forward: bool) -> None:
        truth, timeline, watch = self.truth, self.timeline, self._watch(case)
        number = timeline.add_watchpoint(
            watch.start, watch.length, watch.access, "physical" if case.is_physical else "virtual"
        )
        try:
            await timeline.seek(here)
            for _ in range(3):
                wanted = {one.position for one in truth.touches if case.concerns(one)}
                ahead = [at for at in wanted if (at >= here if forward else at < here)]
                if not ahead:
                    return  # what is outside of the truth is not known
                expected = min(ahead) if forward else max(ahead)
                hit = await (timeline.run() if forward else timeline.run_back())
                if hit is None or hit.position != expected:
                    raise Divergence(f"from {here:_} to {hit}, not {expected:_}")
                self._check(case, hit)
                here = expected + forward
                if timeline.position != here:
                    raise Divergence(f"stopped at {timeline.position:_}, not {here:_}")
        finally:
            timeline.remove(number)

    async def _last_write(self, case: Case, dice: random.Random) -> None:
        """Ask who wrote last, and what was there before and after."""
        truth, stop = self.truth, self._position(dice)
        case = Case(case.first, case.stop, "w", case.is_physical)
        wanted = [at.position for at in truth.touches if case.concerns(at) and at.position < stop]
        if not wanted:
            return
        await self.timeline.seek(stop)
        watch, space = self._watch(case), "physical" if case.is_physical else "virtual"
        found = await last_write(self.timeline, watch.start, watch.length, space)  # type: ignore[arg-type]
        at = max(wanted)
        told = found and (found.position, found.old, found.new)
        place = case.first, case.stop
        expected = (at, truth.bytes_at(at, *place), truth.bytes_at(at + 1, *place))
        if told != expected:
            raise Divergence(f"last write {told}, not {expected}")
        hit = await self.timeline.last_hit(Stops(watches=(watch,)), 0, stop)
        if hit is None or hit.position != at:
            raise Divergence(f"last hit {hit}, not at {at:_}")
        self._check(case, hit)

    async def _memory(self, _case: Case, dice: random.Random) -> None:
        """Read memory at a position and at the one before, which a window holds."""
        position = max(self.truth.start + 1, self._position(dice))
        await self.timeline.seek(position)
        for at in (position, position - 1):
            data = await self.timeline.read(self.truth.border - AROUND, 2 * AROUND)
            if data != self.truth.memory[at]:
                raise Divergence(f"memory at {at:_} differs")
            if at == position:
                await self.timeline.step_back()

    async def _trace(self, _case: Case, dice: random.Random) -> None:
        """Trace all accesses between two positions."""
        start, stop = sorted((self._position(dice), self._position(dice)))
        low, high = self.truth.border - AROUND, self.truth.border + AROUND
        found = map(hit_of, (await self.timeline.trace(start, stop)).accesses)
        hits = [hit for hit in found if low <= (hit.address or 0) < high]
        self._compare(Case(low, high, "rw", is_physical=False), hits, start, stop)

    def _compare(self, case: Case, hits: Sequence[Hit], start: int, stop: int) -> None:
        """Require that `hits` are all that concerns `case` from `start` to before `stop`."""
        told: Counter[tuple[int, bool | None, int]] = Counter()
        for hit in hits:
            self._check(case, hit)
            assert hit.address is not None and hit.size is not None
            inside = range(max(case.first, hit.address), min(case.stop, hit.address + hit.size))
            told.update((hit.position, hit.is_store, at) for at in inside)
        if any(hit.position > after.position for hit, after in pairwise(hits)):
            raise Divergence("hits are not in order")
        expected: Counter[tuple[int, bool | None, int]] = Counter()
        for touch in self.truth.touches:
            if start <= touch.position < stop and case.concerns(touch):
                inside = range(max(case.first, touch.first), min(case.stop, touch.stop))
                expected.update((touch.position, touch.is_store, at) for at in inside)
        if told != expected:
            at, is_store, address = min((told - expected) | (expected - told))
            key = at, is_store, address
            kind = "stored to" if is_store else "loaded"
            times = f"{told[key]} times, not {expected[key]}"
            raise Divergence(f"{address:#x} is {kind} at {at:_} {times}")

    def _check(self, case: Case, hit: Hit) -> None:
        """Require that a hit concerns `case` and is a whole access, with its true bytes."""
        self.hits += 1
        assert hit.address is not None and hit.size is not None and hit.data is not None
        stop = hit.address + hit.size
        touches = [
            touch
            for touch in self.truth.touches
            if (touch.position, touch.is_store) == (hit.position, hit.is_store)
            and touch.first <= hit.address
            and stop <= touch.stop
        ]
        if not touches or not (hit.address < case.stop and case.first < stop):
            raise Divergence(f"{hit} is none of the accesses that are watched")
        unit = touches[0].unit
        if unit and (hit.size != unit or (hit.address - touches[0].first) % unit):
            raise Divergence(f"{hit} is no access of {unit} bytes")
        at = hit.position + bool(hit.is_store)
        if hit.data != self.truth.bytes_at(at, hit.address, stop):
            raise Divergence(f"{hit} moved other bytes")
        if hit.value not in (int.from_bytes(hit.data, "little"), int.from_bytes(hit.data, "big")):
            raise Divergence(f"{hit} has not the value of its bytes")
        if list(hit.placed) != [self._place(one) for one in range(hit.address, stop)]:
            raise Divergence(f"{hit} is elsewhere in physical memory")
