"""The checkpoint pass: one replay from start to end that leaves checkpoints behind.

Where they stand is decided by measured costs. A seek loads the checkpoint before its
target and replays from there, so checkpoints are spaced by replay *time*: close
together where the guest is slow to replay, far apart where it is fast.
"""

from __future__ import annotations

import asyncio
import bisect
import errno
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import EnvironmentLacks, QemuRefused
from retrograde.machine.process import finished
from retrograde.machine.qemu import Qemu
from retrograde.machine.ram import MIB, GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording, disk_errors_named
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.pages import Table
from retrograde.timeline.quieting import run_until_quiet
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Checkpoint, origin_of

_log = logging.getLogger(__name__)

SEEK_SECONDS = 0.08
"""The time from loading a checkpoint to the next one that spacing aims at."""

MOST_OVERHEAD = 0.5
"""Time spent on saving, as a share of that spent on replaying."""

COPIED_RAM = 256 << 20
"""Bytes of RAM up to which it is copied, to be stored while the replay runs on."""

PLACES = 20
"""Positions at which a checkpoint is tried, until there is none before the next is due."""

DEFAULT_BUDGET = 1_000_000_000
"""Bytes of disk the checkpoints of one recording may take."""

Progress = Callable[[int], None]


@dataclass
class Spacing:
    """Decides how long to replay before the next checkpoint, from measured costs. Pure.

    `budget` is in bytes; as it comes to be used up, spacing grows.
    """

    end: int
    budget: int
    save_seconds: float = 0.05
    stretch: float = 1.0

    def seconds(self, position: int, used: int) -> float:
        """Return the time to replay; `used` is in bytes on disk at `position`."""
        if position and used * (self.end / position) > self.budget * self.stretch:
            self.stretch *= 2
        return max(SEEK_SECONDS, self.save_seconds / MOST_OVERHEAD) * self.stretch

    def saved(self, seconds: float) -> None:
        """Learn what a save cost: the newer, the more it counts."""
        self.save_seconds += (seconds - self.save_seconds) / 4


async def survey(
    recording: Recording,
    qemu: Qemu,
    *,
    budget: int = DEFAULT_BUDGET,
    progress: Progress | None = None,
) -> CheckpointStore:
    """Replay `recording` once, save checkpoints, and return their published store.

    Where QEMU can make none, for disk requests that never cease, there are none: they only
    make seeks faster. A full disk ends the saving, not the work: what was saved stays usable.
    Checkpoints that replace damaged ones are made at the same positions, to which the index
    belongs. Where the cache may not be written there are none, either. Raises
    EnvironmentLacks when there is not even room for a few checkpoints.
    """
    if progress:
        progress(0)
    origin = origin_of(recording, qemu)
    with disk_errors_named(recording.cache):
        try:
            store = CheckpointStore.create(recording, origin)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            _log.warning(
                "%s cannot be written: %s. Without checkpoints each seek replays from the start.",
                recording.cache,
                error.strerror,
            )
            return CheckpointStore.nowhere(origin)
    try:
        async with await Replayer.start(recording, qemu) as replayer:
            facts = await asyncio.to_thread(lambda: LogFacts.read(recording.log()))
            has_room = True
            if replayer.can_load:
                has_room = await _pass(recording.end, facts, replayer, store, budget, progress)
            if not has_room and not store.checkpoints:
                raise EnvironmentLacks(
                    f"There is no room for checkpoints in {recording.cache}.",
                    f"Free {budget // 1_000_000} MB, or give a larger budget.",
                )
            store.use_reserve()
            with disk_errors_named(store.folder.path):
                await finished(asyncio.to_thread(replayer.copy_images, store.folder))
        return await finished(asyncio.to_thread(store.publish))
    except BaseException:
        store.discard()
        raise


async def _pass(
    end: int,
    facts: LogFacts,
    replayer: Replayer,
    store: CheckpointStore,
    budget: int,
    progress: Progress | None,
) -> bool:
    """Replay and keep checkpoints; whether there was room for all."""
    spacing, keeper = Spacing(end, budget), _Keeper(store, replayer.ram)
    seconds = 0.0
    try:
        while replayer.position < end and store.bytes < budget:
            began = time.monotonic()
            if await _find_savable(replayer, facts, end):
                place, saving = replayer.position, time.monotonic()
                seconds += saving - began
                if registers := await _save(replayer):
                    await keeper.keep(
                        Checkpoint(position=place, registers=registers, seconds=seconds)
                    )
                    spacing.saved(time.monotonic() - saving)
                    seconds = 0.0
            began = time.monotonic()
            if store.places:
                await replayer.run_to(_next_place(store.places, replayer.position, end))
            else:
                await replayer.run_for(spacing.seconds(replayer.position, store.bytes), end)
                # Stopped from outside the machine may be before or after taking an interrupt:
                # one position on, where there is none to take, it stands as any replay does.
                clear = facts.clear_from(replayer.position + 1)
                if clear < end:
                    await replayer.run_to(clear)
            seconds += time.monotonic() - began
            if progress:
                progress(replayer.position)
        await keeper.finish()
        return store.bytes < budget
    except OSError:
        return False  # the disk is full: what was kept is whole
    finally:
        await finished(keeper.settle())


def _next_place(places: Sequence[int], position: int, end: int) -> int:
    """Return the first of `places`, which rise, behind `position`, or else the end."""
    at = bisect.bisect_right(places, position)
    return places[at] if at < len(places) else end


async def _find_savable(replayer: Replayer, facts: LogFacts, end: int) -> bool:
    """Go on to where a snapshot can be good; most targets are there. Whether there is a place."""
    for _ in range(PLACES):
        if not await run_until_quiet(replayer, facts, end):
            return False
        if await replayer.may_save():
            return True
        later = facts.clear_from(replayer.position + 1)
        if later >= end:
            return False
        await replayer.run_to(later)
    return False


async def _save(replayer: Replayer) -> str:
    """Save a snapshot here; return the registers, "" where QEMU refuses one."""
    try:
        await replayer.save(f"cp{replayer.position}")
    except QemuRefused as refusal:
        _log.warning("no checkpoint at %d: %s", replayer.position, refusal)
        return ""
    return (await (await replayer.gdb()).read_registers()).decode()


class _Keeper:
    """Stores the RAM of checkpoints, beside the running replay where a copy is affordable."""

    def __init__(self, store: CheckpointStore, ram: GuestRam) -> None:
        self._store = store
        self._ram = ram
        self._table = store.pages.empty_table()
        self._copy = np.empty(ram.size, np.uint8) if ram.size <= COPIED_RAM else None
        self._pending: tuple[Checkpoint, asyncio.Future[Table]] | None = None

    async def keep(self, checkpoint: Checkpoint) -> None:
        """Keep `checkpoint` with the RAM as it is now; the machine may run on at once."""
        await self.finish()
        present, put = self._ram.present(), self._store.pages.put
        if self._copy is None:
            ram = self._ram.array()
            table = await finished(asyncio.to_thread(put, ram, self._table, present))
            self._add(checkpoint, table)
            return
        await finished(asyncio.to_thread(self._take, self._copy, present))
        putting = asyncio.to_thread(put, self._copy, self._table, present)
        self._pending = checkpoint, asyncio.ensure_future(putting)

    def _take(self, copy: NDArray[np.uint8], present: NDArray[np.bool_]) -> None:
        """Copy the RAM as it is now, which the machine may change once it runs on."""
        ram = self._ram.array()
        for number in np.flatnonzero(present).tolist():
            part = slice(number * MIB, (number + 1) * MIB)
            copy[part] = ram[part]

    async def finish(self) -> None:
        """Wait until everything is stored; raises OSError when the disk is full."""
        if self._pending is not None:
            (checkpoint, table), self._pending = self._pending, None
            self._add(checkpoint, await table)

    async def settle(self) -> None:
        """Let a store under way end, whatever comes of it: its files are about to close."""
        if self._pending is not None:
            await asyncio.gather(self._pending[1], return_exceptions=True)

    def _add(self, checkpoint: Checkpoint, table: Table) -> None:
        self._store.add(checkpoint, table)
        self._table = table
