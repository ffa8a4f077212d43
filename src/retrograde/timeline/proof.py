"""Proving checkpoints: a checkpoint is good when the replay from it is the recorded one.

A checkpoint may load, step and step back as it should and lead astray millions of
instructions later, because some device's state was not all saved. So each is loaded and
run on to the next one's position, where registers and all RAM must be what the pass that
made the checkpoints saw. Some are run on to the end of the log, compared at every
checkpoint on the way, because what is wrong may show late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from retrograde.errors import Divergence, PositionError, QemuError
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import Checkpoint, CheckpointStore, origin_of
from retrograde.timeline.survey import survey

Progress = Callable[[int], None]

TO_THE_END = 2
"""Checkpoints, evenly spread, from which the whole rest is replayed."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried. Positions of checkpoints that led astray are in `dropped`.

    `comparisons` are machine states compared, registers and all RAM each.
    """

    checkpoints: int
    comparisons: int
    reached_end: int
    dropped: list[int]


async def prove_checkpoints(
    recording: Recording, qemu: Qemu, *, progress: Progress | None = None
) -> Proof:
    """Try the checkpoints in a recording's cache, made first if there are none."""
    store = CheckpointStore.open(recording.cache, origin_of(recording, qemu))
    if store is None:
        store = await survey(recording, qemu)
    try:
        async with await Seat.take(recording, qemu, store, LogFacts.read(recording.log())) as seat:
            return await prove(store, seat, progress=progress)
    finally:
        store.close()


async def prove(store: CheckpointStore, seat: Seat, *, progress: Progress | None = None) -> Proof:
    """Try all checkpoints of `store` by `seat`, a seat on that store, and keep the good.

    Takes about two replays. The result is noted in the store for good.
    """
    trial = _Trial(store, seat, progress)
    tried = list(store.checkpoints)
    chosen = {len(tried) * (part + 1) // (TO_THE_END + 1) for part in range(TO_THE_END)}
    dropped: list[int] = []
    for number, checkpoint in enumerate(tried):
        later = tried[number + 1 :] if number in chosen else tried[number + 1 : number + 2]
        to_end = number in chosen or number == len(tried) - 1
        try:
            await trial.run(checkpoint, later, to_end)
        except (Divergence, PositionError, QemuError):
            dropped.append(checkpoint.position)
            if checkpoint in store.checkpoints:  # a seat drops what does not even load
                store.distrust(checkpoint)
    store.index.proven = True
    store.write_index()
    return Proof(
        checkpoints=len(tried),
        comparisons=trial.comparisons,
        reached_end=trial.reached_end,
        dropped=dropped,
    )


class _Trial:
    """Runs from one checkpoint after the other, and counts."""

    def __init__(self, store: CheckpointStore, seat: Seat, progress: Progress | None) -> None:
        self.comparisons = 0
        self.reached_end = 0
        self._store = store
        self._seat = seat
        self._progress = progress

    async def run(self, start: Checkpoint, later: Sequence[Checkpoint], to_end: bool) -> None:
        """Load `start` and run on, comparing at each of `later`; raises what goes wrong."""
        seat = self._seat
        await seat.go(start.position, load=True)
        if start not in self._store.checkpoints:
            raise Divergence(f"The checkpoint at {start.position:_} does not load as saved.")
        self._compare_ram(start)
        for checkpoint in later:
            await seat.run_on(checkpoint.position)
            packet = await (await seat.gdb()).read_registers()
            if packet.decode() != checkpoint.registers:
                raise Divergence(f"Registers differ at {checkpoint.position:_}.")
            self._compare_ram(checkpoint)
            if self._progress:
                self._progress(checkpoint.position)
        if to_end:
            await seat.run_on(seat.recording.end)
            self.reached_end += 1

    def _compare_ram(self, checkpoint: Checkpoint) -> None:
        if not self._store.pages.equals(self._store.table(checkpoint), self._seat.ram.array()):
            raise Divergence(f"RAM differs at {checkpoint.position:_}.")
        self.comparisons += 1
