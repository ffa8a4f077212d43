"""A timeline over the model machine: the real algorithms, no QEMU, thousands a second.

::

    program = Program([Instruction("add", 0, 0, 1), Instruction("jump", number=-1)], 1000)
    async with model_timeline(program, folder, checkpoints=[0, 500]) as timeline:
        await timeline.seek(700)
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from retrograde.machine.parked import Parked
from retrograde.machine.probe.probe import Probe
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.recording.machinespec import MachineSpec
from retrograde.recording.manifest import Manifest, QemuIdentity, Ram
from retrograde.testing.cpu import RAM_BYTES, Execution, Program, execute
from retrograde.testing.machine import ModelReplayer, packet_of
from retrograde.testing.probe import ModelProbe
from retrograde.timeline.history import History
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Checkpoint, Origin, SavedImages
from retrograde.timeline.timeline import Timeline

TARGET = "riscv64"
"""Whose names for pc and sp the model shares."""


CYCLE = 32
"""Positions from one disk request to the next; it is in flight in the latter half of them."""


def _seat(
    recording: Recording,
    store: CheckpointStore,
    execution: Execution,
    *,
    with_probe: bool,
    dies: float,
    keeps_code: bool,
    disks: bool,
    seed: int,
) -> Seat:
    """Return a seat whose processes are model machines."""
    probe = ModelProbe(execution) if with_probe else None
    busy = frozenset(_busy(execution) if disks else ())
    dice = random.Random(seed)  # noqa: S311 - chances, not secrets

    async def launch(_images: SavedImages | None) -> Parked:
        saved = {one.tag: execution.last[one.position] for one in store.checkpoints}
        return ModelReplayer(execution, probe, saved, dice, dies, keeps_code, busy)

    # A Probe is a memory that QEMU fills; the model has what was asked of it instead.
    carried = cast(Probe, probe)
    return Seat(recording, store, facts_of(execution, disks=disks), carried, launch)


@contextlib.asynccontextmanager
async def model_history(
    program: Program,
    folder: Path,
    *,
    checkpoints: Sequence[int] = (0,),
    seats: int = 2,
    with_probe: bool = True,
    dies: float = 0.0,
    keeps_code: bool = False,
    disks: bool = False,
    seed: int = 0,
) -> AsyncIterator[History]:
    """Open the history of a program's execution, with checkpoints at positions.

    Checkpoints at positions with several states are left out, as no pass makes them.
    `folder` must be empty. `dies` is the chance that a machine dies at an await;
    `keeps_code` has machines do so that load (Replayer.kept_code), `disks` has requests in
    flight at half of all positions.
    """
    execution = execute(program)
    recording = _recording(folder, execution)
    store = _store(folder, execution, checkpoints)
    taken = [
        _seat(
            recording,
            store,
            execution,
            with_probe=with_probe,
            dies=dies,
            keeps_code=keeps_code,
            disks=disks,
            seed=seed + number,
        )
        for number in range(seats)
    ]
    async with await History.over(recording, store, taken) as history:
        yield history


@contextlib.asynccontextmanager
async def model_timeline(program: Program, folder: Path, **options: Any) -> AsyncIterator[Timeline]:
    """Open a timeline on a program's execution; takes what `model_history` does."""
    async with (
        model_history(program, folder, **options) as history,
        await Timeline.on(history) as timeline,
    ):
        yield timeline


def facts_of(execution: Execution, *, disks: bool = False) -> LogFacts:
    """Return what the log of an execution would tell."""
    exceptions = np.unique(np.array(execution.exceptions, np.uint64))
    interrupts = np.unique(np.array(execution.interrupts, np.uint64))
    deliveries = np.union1d(exceptions, interrupts)
    done = np.array([one for one in _busy(execution) if one % CYCLE == CYCLE - 1], np.uint64)
    completions = done if disks else done[:0]
    transfers = np.array(execution.transfers, np.uint64)
    disturbances = np.union1d(np.union1d(deliveries, transfers), completions)
    taken = np.sort(np.concatenate([exceptions, interrupts]))
    are_exceptions = np.isin(taken, exceptions)
    return LogFacts(exceptions, interrupts, deliveries, disturbances, completions, are_exceptions)


def _busy(execution: Execution) -> list[int]:
    """Return the positions at which disk requests are in flight, if there are disks."""
    return [one for one in range(1, execution.end) if one % CYCLE >= CYCLE // 2]


def _recording(folder: Path, execution: Execution) -> Recording:
    """Return a recording of an execution, without files."""
    manifest = Manifest(
        tool="model",
        created="",
        qemu=QemuIdentity("", ""),
        machine=MachineSpec(TARGET, ()),
        ram=Ram(bytes=RAM_BYTES, shared=True),
        snapshot=True,
        complete=True,
        end=execution.end,
    )
    return Recording(Folder.at(folder), manifest)


def _store(folder: Path, execution: Execution, positions: Sequence[int]) -> CheckpointStore:
    store = CheckpointStore.fresh(Folder.at(folder), Origin(0, "", "", RAM_BYTES))
    facts = facts_of(execution)
    table = store.pages.empty_table()
    for position in sorted({0, *positions}):
        if position > execution.end or (position and facts.is_delivery(position)):
            continue
        moment = execution.last[position] if position else 0
        ram = np.frombuffer(bytes(execution.ram_at(moment)), np.uint8)
        table = store.pages.put(ram, table, np.ones(1, np.bool_))
        registers = packet_of(execution.registers[moment]).decode()
        store.add(Checkpoint(position=position, registers=registers, seconds=0.0), table)
    return store
