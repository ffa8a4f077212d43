"""The test that tells whether a checkpoint is good: where it leads, not whether it loads.

A machine that was loaded may step and step back as it should, and stray millions of
instructions later because some device's state was not all saved. So the machine goes on
from the checkpoint to several positions, whose registers and RAM must be those of the
pass that made it, and to the end of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retrograde.errors import Divergence, RetrogradeError
from retrograde.held import Scratch
from retrograde.machine.qemu import Qemu
from retrograde.machine.ram import GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.machine.snapshot import Snapshot, fill_of
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.timeline.digest import ram_digest
from retrograde.timeline.logfacts import LogFacts

DISTANCES = (1, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
"""How far beyond the checkpoint machines are compared, in instructions."""

TAG = "trial"


@dataclass(frozen=True)
class Landmark:
    """What the machine was like at a position, in the pass that was not loaded."""

    position: int
    registers: bytes
    digest: str


@dataclass(frozen=True)
class LoadTrial:
    """What came of a checkpoint at `position`, loaded in the process that made it.

    `difference` says in a clause where it went astray, "" when it led to the end of the
    log by way of all landmarks. `fresh` says the same of a new process.
    """

    position: int
    landmarks: int
    difference: str
    fresh: str

    def check(self) -> None:
        """Raise Divergence when a process that loads it does not replay what was recorded."""
        if self.difference:
            fresh = self.fresh or "it leads to the end"
            raise Divergence(
                f"Loaded at {self.position:_}, {self.difference}; in a new process: {fresh}"
            )


async def try_checkpoint(
    recording: Recording, qemu: Qemu, facts: LogFacts, position: int
) -> LoadTrial:
    """Make a checkpoint at the first position from `position` on that has one state; try it."""
    position = facts.clear_from(position)
    with Scratch() as scratch:
        folder = Folder.at(scratch)
        async with await Replayer.start(recording, qemu) as replayer:
            await replayer.run_to(position)
            while not await replayer.may_save():
                await replayer.run_to(facts.clear_from(replayer.position + 1))
            position = replayer.position
            await replayer.save(TAG)
            fill = fill_of(replayer.ram)
            replayer.copy_images(folder)
            marks = [await _look(replayer)]
            for distance in DISTANCES:
                at = facts.clear_from(position + distance)
                if at < recording.end:
                    await replayer.run_to(at)
                    marks.append(await _look(replayer))
            difference = await _follow(replayer, marks, fill)
        fresh = ""
        if difference:
            async with await Replayer.start(recording, qemu, images=folder) as other:
                fresh = await _follow(other, marks, fill)
    return LoadTrial(position, len(marks), difference, fresh)


async def _look(replayer: Replayer) -> Landmark:
    registers = await (await replayer.gdb()).read_registers()
    shared = replayer.recording.manifest.ram.shared
    digest = ram_digest(replayer.ram.array()) if shared else ""
    return Landmark(replayer.position, registers, digest)


async def _follow(
    replayer: Replayer, marks: list[Landmark], fill: Callable[[GuestRam], None] | None
) -> str:
    """Load the checkpoint and go on; return where it is not as it was, "" for nowhere."""
    start = marks[0].position
    try:
        await replayer.load(Snapshot(TAG, start, fill))
        for mark in marks:
            await replayer.run_to(mark.position)
            seen, distance = await _look(replayer), mark.position - start
            if seen != mark:
                what = "registers" if seen.registers != mark.registers else "RAM"
                return f"{distance:_} instructions on, {what} are others"
        reached = await replayer.run_to_end()
    except RetrogradeError as error:
        distance = replayer.position - start
        return f"{distance:_} instructions on or later: {error.what}"
    end = replayer.recording.end
    return "" if reached >= end else f"the replay ended at {reached:_}, before {end:_}"
