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

from retrograde.errors import PositionError, QemuError
from retrograde.machine.qemu import Qemu
from retrograde.machine.ram import GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Checkpoint, origin_of
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
    """Try the checkpoints in a recording's cache, made first if there are none.

    Keeps the good ones; takes about two replays. The result is noted in the cache.
    """
    store = CheckpointStore.open(recording, origin_of(recording, qemu))
    if store is None:
        store = await survey(recording, qemu)
    try:
        async with await Seat.take(recording, qemu, store, LogFacts.read(recording.log())) as seat:
            proof = await _Trial(store, seat, qemu, progress).try_all()
        store.index.proven = True
        store.write_index()
        return proof
    finally:
        store.close()


class _Trial:
    """Runs from one checkpoint after the other, and counts."""

    def __init__(
        self, store: CheckpointStore, seat: Seat, qemu: Qemu, progress: Progress | None
    ) -> None:
        self._comparisons = 0
        self._reached_end = 0
        self._dropped: list[int] = []
        self._seen_true: set[Checkpoint] = set()
        self._store = store
        self._seat = seat
        self._qemu = qemu
        self._progress = progress

    async def try_all(self) -> Proof:
        """Try every checkpoint and drop those that fail."""
        tried = list(self._store.checkpoints)
        chosen = {len(tried) * (part + 1) // (TO_THE_END + 1) for part in range(TO_THE_END)}
        for number, checkpoint in enumerate(tried):
            if checkpoint not in self._seen_true and not await self._is_true(checkpoint):
                self._drop(checkpoint)
                continue
            try:
                await self._run(checkpoint, tried[number + 1 :], to_end=number in chosen)
            except (_Astray, PositionError, QemuError):
                self._drop(checkpoint)
        return Proof(
            checkpoints=len(tried),
            comparisons=self._comparisons,
            reached_end=self._reached_end,
            dropped=sorted(self._dropped),
        )

    async def _run(self, start: Checkpoint, later: Sequence[Checkpoint], to_end: bool) -> None:
        """Load `start` and run on to the next good one of `later`, or past all to the end."""
        await self._seat.go(start.position, load=True)
        if start not in self._store.checkpoints:
            raise _Astray  # the seat found that it does not even load as it was saved
        for checkpoint in later:
            await self._seat.run_on(checkpoint.position)
            registers = await (await self._seat.gdb()).read_registers()
            if self._is(checkpoint, registers, self._seat.ram):
                self._seen_true.add(checkpoint)
            elif await self._is_true(checkpoint):
                raise _Astray
            else:
                self._drop(checkpoint)
            if self._progress:
                self._progress(checkpoint.position)
            if checkpoint in self._seen_true and not to_end:
                return
        await self._seat.run_on(self._seat.recording.end)
        self._reached_end += 1

    def _is(self, checkpoint: Checkpoint, registers: bytes, ram: GuestRam) -> bool:
        """Whether a machine looks as it did when the checkpoint was made."""
        self._comparisons += 1
        same_ram = self._store.pages.equals(self._store.table(checkpoint), ram.array())
        return same_ram and registers.decode() == checkpoint.registers

    async def _is_true(self, checkpoint: Checkpoint) -> bool:
        """Whether a replay from the recording's own start leads to `checkpoint`."""
        async with await Replayer.start(self._seat.recording, self._qemu) as replayer:
            await replayer.run_to(checkpoint.position)
            registers = await (await replayer.gdb()).read_registers()
            is_true = self._is(checkpoint, registers, replayer.ram)
        if is_true:
            self._seen_true.add(checkpoint)
        return is_true

    def _drop(self, checkpoint: Checkpoint) -> None:
        if checkpoint.position not in self._dropped:
            self._dropped.append(checkpoint.position)
        if checkpoint in self._store.checkpoints:
            self._store.distrust(checkpoint)


class _Astray(Exception):
    """The replay from a checkpoint is not the recorded one."""
