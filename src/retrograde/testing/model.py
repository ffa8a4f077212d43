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
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from retrograde.machine.probe import Probe
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.position import parse_position
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.recording.manifest import Ram
from retrograde.testing.cpu import RAM_BYTES, Execution, Program, execute
from retrograde.testing.machine import ModelReplayer, packet_of
from retrograde.testing.probe import ModelProbe
from retrograde.timeline.history import History
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import Checkpoint, Origin
from retrograde.timeline.timeline import Timeline

TARGET = "riscv64"
"""Whose names for pc and sp the model shares."""


CYCLE = 32
"""Positions from one disk request to the next; it is in flight in the latter half of them."""


class ModelSeat(Seat):
    """A seat whose processes are model machines."""

    def __init__(
        self,
        recording: Recording,
        store: CheckpointStore,
        execution: Execution,
        *,
        with_probe: bool,
        dies: float,
        keeps_code: bool,
        disks: bool,
        seed: int,
    ) -> None:
        self._model_probe = ModelProbe(execution) if with_probe else None
        probe = cast(Probe, self._model_probe)
        facts = facts_of(execution, disks=disks)
        super().__init__(recording, cast(Qemu, None), store, facts, probe)
        self._busy = frozenset(_busy(execution) if disks else ())
        self._execution = execution
        self._dies = dies
        self._code_is_kept = keeps_code
        self._dice = random.Random(seed)  # noqa: S311 - chances, not secrets

    async def start(self) -> None:
        """Start a model machine at position 0."""
        saved = {one.tag: self._execution.last[one.position] for one in self.store.checkpoints}
        model = ModelReplayer(
            self._execution,
            self._model_probe,
            saved,
            self._dice,
            self._dies,
            self._code_is_kept,
            self._busy,
        )
        self._marks.clear()
        self._replayer = cast(Replayer, model)


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
    recording = _recording(execution)
    store = _store(folder, execution, checkpoints)
    taken = [
        ModelSeat(
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
    return LogFacts(exceptions, interrupts, deliveries, disturbances, completions)


def _busy(execution: Execution) -> list[int]:
    """Return the positions at which disk requests are in flight, if there are disks."""
    return [one for one in range(1, execution.end) if one % CYCLE >= CYCLE // 2]


def _recording(execution: Execution) -> Recording:
    """Return what the timeline asks of a recording."""
    end = execution.end

    def resolve(expression: str | int) -> int:
        return parse_position(str(expression), end, lambda _text: None)

    machine = SimpleNamespace(target=TARGET, disks=list)
    ram = Ram(bytes=RAM_BYTES, shared=True)
    manifest = SimpleNamespace(machine=machine, ram=ram)
    double: Any = SimpleNamespace(end=end, manifest=manifest, resolve=resolve)
    return cast(Recording, double)


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
