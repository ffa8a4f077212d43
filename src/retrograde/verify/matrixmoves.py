"""The timeline's moves on one span of positions, against single steps of a fresh replay."""

from __future__ import annotations

from collections import Counter

from retrograde.errors import Divergence
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.search import Hit
from retrograde.timeline.timeline import Timeline
from retrograde.verify.claims import StateClaim
from retrograde.verify.oracle import Oracle, State, Walk, Watched

SPAN = 200
"""Positions that are stepped through."""


class Moves:
    """Moves over the positions from `start` to `end`, compared with a walk through them."""

    def __init__(self, timeline: Timeline, oracle: Oracle, walk: Walk) -> None:
        self._timeline = timeline
        self._oracle = oracle
        self._walk = walk
        self.start = min(walk.states)
        self.end = max(walk.states)

    @classmethod
    async def over(cls, timeline: Timeline, qemu: Qemu, start: int) -> Moves:
        """Walk through SPAN positions from `start`, or to the end of the recording."""
        end = min(start + SPAN, timeline.end)
        async with await _oracle(timeline.recording, qemu, timeline) as oracle:
            walk = await oracle.walk(start, end, {start: (), end: ()})
        return cls(timeline, oracle, walk)

    async def step(self) -> str:
        """Step back from the end of the span and forward again; raises Divergence."""
        timeline = self._timeline
        await timeline.seek(self.end)
        await self._compare("seeking", digest=True)
        while timeline.position > self.start:
            await timeline.step_back()
            await self._compare("stepping back")
        await self._compare("stepping back", digest=True)
        while timeline.position < self.end:
            await timeline.step()
            await self._compare("stepping forward")
        return f"{self.end - self.start} steps back and forward from {self.end:_}"

    async def break_(self) -> str:
        """Run to a breakpoint, forward and back; raises Divergence."""
        pcs = {at: state.pc for at, state in self._walk.states.items()}
        inside = {at: pc for at, pc in pcs.items() if self.start < at < self.end}
        pc, count = Counter(inside.values()).most_common(1)[0]
        hits = [at for at in range(self.start + 1, self.end) if pcs[at] == pc]
        number = self._timeline.add_breakpoint(pc)
        try:
            await self._run(hits[0], hits[-1], f"the breakpoint at {pc:#x}")
        finally:
            self._timeline.remove(number)
        return f"{pc:#x}, reached {count} times, met at {hits[0]:_} and {hits[-1]:_}"

    async def watch(self, qemu: Qemu) -> str | None:
        """Run to a memory access, forward and back; None when nothing in the span has one.

        The hits are compared with those of gdb watchpoints in single steps. Raises
        Divergence.
        """
        watched = await self._watched()
        if watched is None:
            return None
        async with await _oracle(self._timeline.recording, qemu, self._timeline) as oracle:
            walk = await oracle.walk(self.start, self.end, {}, digest=False, watch=watched)
        timeline = self._timeline
        number = timeline.add_watchpoint(watched.address, watched.count, watched.access)
        try:
            found = {hit.position for hit in await timeline.hits(self.start, self.end)}
            surely = {at for at in walk.accessed if at < self.end}
            wrong = (surely - found) | (found - walk.accessed - walk.unsure)
            if wrong:
                raise _differs(f"accesses to {watched.address:#x}", min(wrong), sorted(found))
            await self._run(
                min(found), max(found), f"accesses to {watched.address:#x}", access=True
            )
        finally:
            timeline.remove(number)
        return f"{watched.address:#x}, written {len(found)} times"

    async def _run(self, first: int, last: int, what: str, *, access: bool = False) -> None:
        """Run forward to the hit at `first` and back to the one at `last`."""
        timeline = self._timeline
        await timeline.seek(self.start)
        await timeline.run()
        if timeline.position != first + access:
            raise _differs(f"running to {what}", timeline.position, [first + access])
        await self._compare(f"running to {what}")
        await timeline.seek(self.end)
        await timeline.run_back()
        if timeline.position != last:
            raise _differs(f"running back to {what}", timeline.position, [last])
        await self._compare(f"running back to {what}")

    async def _compare(self, what: str, *, digest: bool = False) -> None:
        timeline = self._timeline
        truth = self._walk.states[timeline.position]
        digest = digest and timeline.recording.manifest.ram.shared
        held = await timeline.digest() if digest else None
        seen = State(await timeline.packet(), await timeline.pc(), held)
        expected = truth if digest else State(truth.packet, truth.pc)
        StateClaim(what, timeline.position, seen).check(expected, self._oracle.decode)

    async def _watched(self) -> Watched | None:
        """Choose what one store in the span wrote, in RAM."""
        timeline = self._timeline
        number = timeline.add_watchpoint(0, 1 << 64, "w")
        stores = await timeline.hits(self.start, self.end)
        timeline.remove(number)
        in_ram = [hit for hit in stores if _in_ram(hit, timeline)]
        if not in_ram:
            return None
        hit = in_ram[len(in_ram) // 2]
        assert hit.address is not None
        assert hit.size is not None
        return Watched(hit.address, min(hit.size, 8), "w")


async def _oracle(recording: Recording, qemu: Qemu, timeline: Timeline) -> Oracle:
    return await Oracle.start(recording, qemu, timeline.facts)


def _in_ram(hit: Hit, timeline: Timeline) -> bool:
    return hit.physical is not None and timeline.view.offset(hit.physical, 8) is not None


def _differs(what: str, position: int, expected: list[int]) -> Divergence:
    wanted = ", ".join(f"{at:_}" for at in expected[:4])
    return Divergence(f"{what.capitalize()}: {position:_} differs from {wanted}.")
