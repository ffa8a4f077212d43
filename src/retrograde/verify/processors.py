"""A recording of several processors, proved: all of them, and RAM, wherever it is stopped.

One replay stops at many positions and makes a checkpoint on the way. It loads that and goes
on once more, a new process does so, and another one replays from the start and stops at the
same positions. Each time the registers of all processors and RAM must be the same, and at the end
the console.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from retrograde.errors import Divergence
from retrograde.held import Scratch
from retrograde.machine.console import ConsolePipe
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.machine.snapshot import Fill, Snapshot, fill_of
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.timeline.digest import ram_digest
from retrograde.timeline.logfacts import LogFacts

TAG = "halfway"

Report = Callable[[str], None]


class ProcessorsResult(msgspec.Struct, kw_only=True):
    """`positions` were compared after a fresh start, `after_load` of them also after loads.

    `checkpoint` is the position of that, and `in_place` whether the process that made it could
    load it: not with disk requests in flight. `changes` are those from one processor to another.
    """

    vcpus: int
    changes: int
    positions: int
    checkpoint: int | None
    after_load: int
    in_place: bool


@dataclass(frozen=True)
class Sight:
    """What all processors' registers and RAM are at a position."""

    position: int
    registers: str
    ram: str


def check_schedule(recording: Recording) -> int:
    """Return how often another processor's turn came.

    Raises RecordingError where the schedule is damaged or not that of the recording's log.
    """
    schedule = recording.schedule()
    return len(schedule.positions(recording.log()))


async def compare_processors(
    recording: Recording,
    qemu: Qemu,
    *,
    count: int,
    seed: int,
    can_load: bool,
    report: Report,
    around: tuple[int, int] | None = None,
) -> ProcessorsResult:
    """Compare `count` random positions, those of `around` if given.

    Raises Divergence at the first difference, RecordingError as `check_schedule`.
    """
    changes = check_schedule(recording)
    facts = LogFacts.read(recording.log())
    dice = random.Random(seed)  # noqa: S311 - choices, not secrets
    wanted = _positions(facts, around or (1, recording.end), count, dice)
    sights: list[Sight] = []
    saved: int | None = None
    in_place = False
    with Scratch() as scratch:
        folder = Folder.at(scratch)
        async with await Replayer.start(recording, qemu) as replayer:
            report("replaying, with stops")
            fill: Fill | None = None
            for number, position in enumerate(wanted):
                await replayer.run_to(position)
                sights.append(await look(replayer))
                if _is_time(saved, number, len(wanted), can_load) and await replayer.is_quiet():
                    saved = number
                    await replayer.save(TAG)
                    fill = fill_of(replayer.ram)
                    replayer.copy_images(folder)
            in_place = saved is not None and await replayer.is_quiet()
            if saved is not None and in_place:
                report("going on from a checkpoint")
                await replayer.load(Snapshot(TAG, wanted[saved], fill))
                await _follow(replayer, sights[saved:], "after a load")
        if saved is not None:
            report("going on from a checkpoint in a new process")
            async with await Replayer.start(recording, qemu, images=folder) as replayer:
                await replayer.load(Snapshot(TAG, wanted[saved], fill))
                await _follow(replayer, sights[saved:], "after a load in a new process")
                await replayer.run_to(recording.end)
    report("replaying once more")
    await _replay_again(recording, qemu, sights)
    return ProcessorsResult(
        vcpus=recording.manifest.machine.vcpus,
        changes=changes,
        positions=len(wanted),
        checkpoint=None if saved is None else wanted[saved],
        after_load=0 if saved is None else len(wanted) - saved - 1,
        in_place=in_place,
    )


def _is_time(saved: int | None, number: int, count: int, can_load: bool) -> bool:
    """Whether the checkpoint is still to be made, halfway or, if that was not quiet, later."""
    return can_load and saved is None and count // 2 <= number < count - 1


async def look(replayer: Replayer) -> Sight:
    """Return what the machine is where it stands."""
    registers = await replayer.monitor.human("info registers -a")
    shared = replayer.recording.manifest.ram.shared
    return Sight(replayer.position, registers, ram_digest(replayer.ram.array()) if shared else "")


async def _replay_again(recording: Recording, qemu: Qemu, sights: list[Sight]) -> None:
    shown = bytearray()
    async with ConsolePipe(shown.extend) as console:
        fd = console.write_fd
        async with await Replayer.start(recording, qemu, console_fd=fd) as replayer:
            await _follow(replayer, sights, "in another replay")
            await replayer.run_to(recording.end)
    until = recording.console.bytes_until(recording.end)
    if len(shown) != until or not recording.console_bytes().startswith(shown):
        raise Divergence("The replayed console is not the recorded one.")


async def _follow(replayer: Replayer, sights: list[Sight], when: str) -> None:
    for sight in sights:
        await replayer.run_to(sight.position)
        seen = await look(replayer)
        if seen.registers != sight.registers:
            raise Divergence(f"{when.capitalize()} registers differ at {sight.position:_}.")
        if seen.ram != sight.ram:
            raise Divergence(f"{when.capitalize()} RAM differs at {sight.position:_}.")


def _positions(
    facts: LogFacts, span: tuple[int, int], count: int, dice: random.Random
) -> list[int]:
    """Return random positions that have one state."""
    first, end = span
    drawn = {facts.clear_from(dice.randrange(first, end)) for _ in range(count)}
    return sorted(position for position in drawn if position < end)
