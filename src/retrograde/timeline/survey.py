"""The checkpoint pass: one replay from start to end that leaves checkpoints behind.

Where they stand is decided by measured costs. A seek loads the checkpoint before its
target and replays from there, so checkpoints are spaced by replay *time*: close
together where the guest is slow to replay, far apart where it is fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from retrograde.errors import EnvironmentLacks
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording, disk_errors_named
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.store import Checkpoint, CheckpointStore, origin_of

SEEK_SECONDS = 0.1
"""The time from loading a checkpoint to the next one that spacing aims at."""

MOST_OVERHEAD = 0.5
"""Time spent on saving, as a share of that spent on replaying."""

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

    A full disk ends the saving, not the work: what was saved stays usable. Raises
    EnvironmentLacks when there is not even room for a few checkpoints.
    """
    with disk_errors_named(recording.cache):
        store = CheckpointStore.create(recording.cache, origin_of(recording, qemu))
    try:
        async with await Replayer.start(recording, qemu) as replayer:
            facts = LogFacts.read(recording.log())
            await _pass(recording.end, facts, replayer, store, budget, progress)
            if not store.checkpoints:
                raise EnvironmentLacks(
                    f"There is no room for checkpoints in {recording.cache}.",
                    f"Free {budget // 1_000_000} MB, or give a larger budget.",
                )
            store.use_reserve()
            with disk_errors_named(store.folder):
                replayer.copy_images(store.folder)
        return store.publish()
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
) -> None:
    spacing = Spacing(end, budget)
    table = store.pages.empty_table()
    gdb = await replayer.gdb()
    seconds = 0.0
    while replayer.position < end and store.bytes < budget:
        position, began = replayer.position, time.monotonic()
        try:
            ram = replayer.ram
            table = store.pages.put(ram.array(), table, ram.present())
            await replayer.save(f"cp{position}")
            registers = (await gdb.read_registers()).decode()
            store.add(Checkpoint(position=position, registers=registers, seconds=seconds), table)
        except OSError:
            return
        saved = time.monotonic()
        spacing.saved(saved - began)
        await replayer.run_for(spacing.seconds(position, store.bytes), end)
        # Stopped from outside the machine may be before or after taking an interrupt:
        # one position on, where there is none to take, it stands as any replay does.
        clear = facts.clear_from(replayer.position + 1)
        if clear < end:
            await replayer.run_to(clear)
        seconds = time.monotonic() - saved
        if progress:
            progress(replayer.position)
