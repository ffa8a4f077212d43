"""What every position of a stretch shows, by single steps: the oracle of random scripts."""

from __future__ import annotations

from retrograde.timeline.logfacts import LogFacts
from retrograde.verify.oracle import Oracle


async def walked(recording, qemu, start, end):
    """Return the pc at every position from `start` to `end`."""
    async with await Oracle.start(recording, qemu, LogFacts.read(recording.log())) as oracle:
        walk = await oracle.walk(start, end, {}, digest=False)
        return {
            position: oracle.decode(state.packet)[oracle.isa.pc]
            for position, state in walk.states.items()
        }
