"""What working on a recording begins with: its checkpoints, and probes for its replayers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from retrograde.errors import EnvironmentLacks, InternalError
from retrograde.isa.isa import isa_for
from retrograde.machine.probe.probe import Capacity, Probe
from retrograde.machine.probe.support import require_probe
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import quirks_named
from retrograde.machine.scheduling import must_be_alone
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.proof import prove_checkpoints
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import origin_of
from retrograde.timeline.survey import DEFAULT_BUDGET, survey

Progress = Callable[[int], None]


async def checkpoints_of(
    recording: Recording,
    qemu: Qemu,
    *,
    budget: int = DEFAULT_BUDGET,
    progress: Progress | None = None,
    all_whole: bool = False,
) -> CheckpointStore:
    """Open the checkpoints of `recording`, which the caller closes.

    Where there are none, one replay makes them, within `budget` bytes of disk; `progress`
    is told its position. Where some quirk makes them doubtful they are then tried. With
    `all_whole` all are looked at first, and made anew where one is damaged. Raises UsageError
    for a recording of several processors.
    """
    must_be_alone(recording)
    origin = origin_of(recording, qemu)
    store = await asyncio.to_thread(CheckpointStore.open, recording, origin)
    if store is not None:
        if not all_whole or await asyncio.to_thread(store.is_whole):
            return store
        store.close()
    store = await survey(recording, qemu, budget=budget, progress=progress)
    if not store.checkpoints or not any(
        quirk.rearms for quirk in quirks_named(recording.manifest.quirks)
    ):
        return store
    store.close()
    await prove_checkpoints(recording, qemu, progress=progress)
    proven = CheckpointStore.open(recording, origin)
    if proven is None:
        raise InternalError(f"The checkpoints in {recording.cache} cannot be opened again.")
    return proven


def probe_for(
    recording: Recording, facts: LogFacts, library: Path, capacity: Capacity | None = None
) -> Probe:
    """Make a probe for one replayer, of the `library` that `require_probe` gives."""
    big_endian = isa_for(recording.manifest.machine.target).byte_order == "big"
    return Probe(
        library, facts.exceptions, facts.interrupts, capacity=capacity, big_endian=big_endian
    )


def probes_for(recording: Recording, qemu: Qemu, facts: LogFacts, count: int) -> list[Probe]:
    """Make a probe for each of `count` replayers; none where `qemu` cannot load it."""
    try:
        if count:
            library = require_probe(qemu.path)
    except EnvironmentLacks:
        return []
    return [probe_for(recording, facts, library) for _ in range(count)]
