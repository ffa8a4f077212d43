"""A few hundred positions, the operations done there, and their comparison."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable

from retrograde.errors import Divergence, QemuRefused
from retrograde.isa.isa import LONG_MODE
from retrograde.machine.probe.request import Access, Breakpoint, Condition
from retrograde.position import format_position
from retrograde.timeline.search import Hit
from retrograde.timeline.timeline import Timeline
from retrograde.verify.claims import StateClaim, StopsClaim, differs
from retrograde.verify.oracle import Oracle, Read, State, Watched

CANDIDATES = 4
"""Positions whose instructions become breakpoints."""

ACCESSES: tuple[Access, ...] = ("r", "w", "w", "rw")
"""What is watched for: twice as often writes, which `last_write` asks for too."""

CONDITIONAL = ("rax", "rcx", "rdi", "x0", "x1", "a0", "r0", "r3")
"""Registers conditions are put on, as far as the machine has them."""

_FRAME = 0x000FFFFFFFFFF000

Operation = Callable[[Timeline, random.Random], Awaitable[str]]


class Patch:
    """The positions from `start` to `end`, both included.

    `reach` is the last position at or before `start` with one state only: the oracle
    must come from there.
    """

    def __init__(self, start: int, end: int, reach: int) -> None:
        self.start = start
        self.end = end
        self.reach = reach
        self.kinds: Counter[str] = Counter()
        self._states: list[StateClaim] = []
        self._stops: list[StopsClaim] = []
        self._candidates: dict[int, Breakpoint] = {}
        self._watched: Watched | None = None
        self._accesses: list[Hit] = []
        self._operations: dict[str, Operation] = {
            "seek": self._seek,
            "step": self._step,
            "step_back": self._step_back,
            "run": self._run,
            "run_back": self._run_back,
            "hits": self._hits,
            "watch": self._watch,
            "watch_back": self._watch_back,
            "last_write": self._last_write,
        }

    async def operate(self, timeline: Timeline, dice: random.Random) -> None:
        """Do one operation and keep what the timeline claims afterwards."""
        before = timeline.position
        kind = dice.choice(self._possible(timeline))
        self.kinds[kind] += 1
        what = await self._operations[kind](timeline, dice)
        text = f"after {what} from {format_position(before)}"
        if not self.start <= timeline.position <= self.end:
            raise differs(text, timeline.position, f"it left {self.start:_} to {self.end:_}")
        await self._claim(timeline, dice, text)

    async def check(self, oracle: Oracle) -> int:
        """Compare all claims with `oracle`, lowest position first; return how many."""
        if not self._states:
            return 0
        reads: dict[int, tuple[Read, ...]] = {}
        for claim in self._states:
            reads[claim.position] = (*reads.get(claim.position, ()), *claim.state.memory)
        walk = await oracle.walk(self.start, self.end, reads, watch=self._watched)
        for claim in sorted(self._states, key=lambda claim: claim.position):
            await self._check_state(claim, walk.states[claim.position], oracle)
        for stops in self._stops:
            stops.check(walk, oracle.decode)
        return len(self._states) + len(self._stops)

    async def _check_state(self, claim: StateClaim, stepped: State, oracle: Oracle) -> None:
        try:
            claim.check(stepped, oracle.decode)
        except Divergence:
            reads = tuple(claim.state.memory)
            straight = await oracle.straight(claim.position, reads)
            claim.check(straight, oracle.decode, also=stepped)

    def _possible(self, timeline: Timeline) -> list[str]:
        here = timeline.position
        if not self.start <= here <= self.end or self.kinds["seek"] < CANDIDATES:
            return ["seek"]
        kinds = ["seek", "step", "step", "step_back", "step_back", "step_back"]
        if not timeline.can_search:
            return kinds
        later = [hit for hit in self._accesses if hit.position >= here]
        earlier = [hit for hit in self._accesses if hit.position < here]
        if self._watched is None or not self._accesses:
            kinds += ["hits"]
        if any(at > here for at in self._candidates):
            kinds += ["run"]
        if any(at < here for at in self._candidates):
            kinds += ["run_back"]
        if later:
            kinds += ["watch"]
        if earlier:
            kinds += ["watch_back"]
        if earlier and self._watched and self._watched.access == "w":
            kinds += ["last_write"]
        return kinds

    # -- operations ----------------------------------------------------------------------

    async def _seek(self, timeline: Timeline, dice: random.Random) -> str:
        target = dice.randint(self.start, self.end)
        await timeline.seek(target)
        if len(self._candidates) < CANDIDATES:
            self._candidates[target] = await _breakpoint_here(timeline, dice)
        return "a seek"

    async def _step(self, timeline: Timeline, dice: random.Random) -> str:
        count = min(_distance(dice), self.end - timeline.position)
        await timeline.step(count)
        return f"{count} steps"

    async def _step_back(self, timeline: Timeline, dice: random.Random) -> str:
        count = min(_distance(dice), timeline.position - self.start)
        await timeline.step_back(count)
        return f"{count} steps back"

    async def _run(self, timeline: Timeline, dice: random.Random) -> str:
        here = timeline.position
        chosen = dice.choice([one for at, one in self._candidates.items() if at > here])
        number = timeline.add_breakpoint(chosen.pc, chosen.conditions)
        hit = await timeline.run()
        timeline.remove(number)
        what = f"a run to {chosen}"
        self._claim_run(what, here, timeline.position, hit, chosen)
        return what

    async def _run_back(self, timeline: Timeline, dice: random.Random) -> str:
        here = timeline.position
        chosen = dice.choice([one for at, one in self._candidates.items() if at < here])
        number = timeline.add_breakpoint(chosen.pc, chosen.conditions)
        hit = await timeline.run_back()
        timeline.remove(number)
        what = f"a run back to {chosen}"
        self._claim_run_back(what, here, timeline.position, hit, chosen)
        return what

    async def _hits(self, timeline: Timeline, dice: random.Random) -> str:
        if self._watched is None:
            self._watched = await self._choose_watched(timeline, dice)
        watched = self._watched
        number = timeline.add_watchpoint(watched.address, watched.count, watched.access)
        self._accesses = await timeline.hits(self.start, self.end)
        timeline.remove(number)
        hits = tuple(self._accesses)
        what = f"looking for {watched}"
        self._stops.append(StopsClaim(what, "hits", self.start, self.end, hits, None, True))
        return what

    async def _watch(self, timeline: Timeline, _dice: random.Random) -> str:
        assert self._watched is not None
        here, watched = timeline.position, self._watched
        number = timeline.add_watchpoint(watched.address, watched.count, watched.access)
        hit = await timeline.run()
        timeline.remove(number)
        what = f"a run to {watched}"
        self._claim_run(what, here, timeline.position, hit, None)
        return what

    async def _watch_back(self, timeline: Timeline, _dice: random.Random) -> str:
        assert self._watched is not None
        here, watched = timeline.position, self._watched
        number = timeline.add_watchpoint(watched.address, watched.count, watched.access)
        hit = await timeline.run_back()
        timeline.remove(number)
        what = f"a run back to {watched}"
        self._claim_run_back(what, here, timeline.position, hit, None)
        return what

    async def _last_write(self, timeline: Timeline, _dice: random.Random) -> str:
        assert self._watched is not None
        here, watched = timeline.position, self._watched
        hit = await timeline.last_store(watched.address, watched.count)
        what = f"asking for the last write to {watched}"
        self._claim_run_back(what, here, hit.position if hit else -1, hit, None)
        return what

    # -- what is claimed -----------------------------------------------------------------

    async def _claim(self, timeline: Timeline, dice: random.Random, what: str) -> None:
        memory: dict[Read, bytes | None] = {}
        for read in await self._reads(timeline, dice):
            try:
                memory[read] = await timeline.read(read.address, read.count, read.space)
            except QemuRefused:
                memory[read] = None
        shared = timeline.recording.manifest.ram.shared
        digest = await timeline.digest() if shared else None
        state = State(await timeline.packet(), await timeline.pc(), digest, memory)
        self._states.append(StateClaim(what, timeline.position, state))

    def _claim_run(
        self, what: str, start: int, landed: int, hit: Hit | None, wanted: Breakpoint | None
    ) -> None:
        if hit is None or landed != hit.position + hit.is_access:
            raise differs(what, landed, f"it stopped here for {hit}")
        stop = hit.position + 1
        self._stops.append(StopsClaim(what, "run", start, stop, (hit,), wanted, wanted is None))

    def _claim_run_back(
        self, what: str, start: int, landed: int, hit: Hit | None, wanted: Breakpoint | None
    ) -> None:
        if hit is None or landed != hit.position:
            raise differs(what, landed, f"it stopped here for {hit}")
        first = hit.position
        self._stops.append(
            StopsClaim(what, "run_back", first, start, (hit,), wanted, wanted is None)
        )

    async def _choose_watched(self, timeline: Timeline, dice: random.Random) -> Watched:
        """Choose part of what some instruction here accesses, or else the stack."""
        number = timeline.add_watchpoint(0, 1 << 64, "rw")
        found = await timeline.hits(self.start, self.end)
        timeline.remove(number)
        access = dice.choice(ACCESSES)
        in_ram = [hit for hit in found if _is_in_ram(hit, timeline)]
        hit = dice.choice(in_ram) if in_ram else None
        if hit is None or hit.address is None or hit.size is None:
            registers = await timeline.registers()
            return Watched(registers[timeline.view.isa.sp] & ~7, 8, access)
        skipped = dice.randrange(hit.size)
        return Watched(hit.address + skipped, dice.randint(1, 8), access)

    async def _reads(self, timeline: Timeline, dice: random.Random) -> list[Read]:
        """Choose what memory to look at: the stack, data in use, page tables."""
        registers, count = await timeline.registers(), dice.choice((1, 4, 8, 33, 64))
        top = registers[timeline.view.isa.sp] + dice.randint(-64, 64)
        reads = [Read(max(0, top), count)]
        if self._watched is not None:
            reads.append(Read(self._watched.address, self._watched.count))
        if any(hit.physical is not None for hit in self._accesses):
            hit = dice.choice([hit for hit in self._accesses if hit.physical is not None])
            reads.append(Read(hit.physical or 0, count, "physical"))
        if registers.get("cr0", 0) >> 31 and registers["efer"] & LONG_MODE:
            entries = await _page_table_entries(timeline, registers["cr3"], top)
            reads.append(Read(dice.choice(entries), 8, "physical"))
        return reads


async def _breakpoint_here(timeline: Timeline, dice: random.Random) -> Breakpoint:
    """Return a breakpoint at the next instruction, half of the time under a condition."""
    registers = await timeline.registers()
    names = [name for name in CONDITIONAL if name in timeline.view.conditional]
    conditions: tuple[Condition, ...] = ()
    if names and dice.random() < 0.5:
        name = dice.choice(names)
        value = registers[name]
        mask = dice.choice(((1 << 64) - 1, 0xFF, 0xFFFFFFFF))
        conditions = (Condition(name, dice.choice(("==", ">=", "<=")), value & mask, mask),)
    return Breakpoint(await timeline.pc(), conditions)


async def _page_table_entries(timeline: Timeline, cr3: int, address: int) -> list[int]:
    """Return where the entries that map `address` are: walking them marks them accessed."""
    entries, table = [], cr3 & _FRAME
    for shift in (39, 30, 21, 12):
        entries.append(table + 8 * (address >> shift & 511))
        entry = int.from_bytes(await timeline.read(entries[-1], 8, "physical"), "little")
        if not entry & 1 or entry >> 7 & 1:
            break
        table = entry & _FRAME
    return entries


def _distance(dice: random.Random) -> int:
    return dice.choice((1, 1, 1, 2, dice.randint(1, 20), dice.randint(1, 200)))


def _is_in_ram(hit: Hit, timeline: Timeline) -> bool:
    return hit.physical is not None and timeline.view.offset(hit.physical, 8) is not None
