"""What machines with several processors need of QEMU, and the turns these take.

QEMU's record/replay knows one processor only. A plugin of ours (docs/scheduler.md) has
several take turns, when recording by a policy and in a replay as it was recorded.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.machine.probe.build import APIS, build_scheduler
from retrograde.machine.probe.trial import start_with
from retrograde.machine.qemu import MachineType, Qemu
from retrograde.recording.bundle import Recording
from retrograde.recording.manifest import SCHEDULER, Scheduler
from retrograde.recording.topology import MOST_VCPUS

QUANTUM = 20_000
"""Instructions one processor runs before another's turn (docs/scheduler.md#the-quantum)."""

MOST_QUANTUM = 10**9


@dataclass(frozen=True)
class Policy:
    """Who runs when, and for how long, while recording.

    In order and for `quantum` instructions each; with a `seed` that is not 0 any that can run is
    drawn, for up to so many.
    """

    quantum: int = QUANTUM
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Return what `round-robin[:QUANTUM]` or `random:SEED[:QUANTUM]` says.

        Raises UsageError for anything else.
        """
        found = re.fullmatch(r"(round-robin|random:(\d{1,18}))(?::(\d{1,10}))?", text)
        quantum = int(found[3] or QUANTUM) if found else 0
        if not found or not 1 <= quantum <= MOST_QUANTUM or (found[2] and not int(found[2])):
            raise UsageError(
                f"{text!r} is no schedule.",
                "Say round-robin, round-robin:INSTRUCTIONS, random:SEED or "
                "random:SEED:INSTRUCTIONS, the seed not 0.",
            )
        return cls(quantum, int(found[2] or 0))

    def noted(self) -> Scheduler:
        """Return what the manifest keeps of it."""
        return Scheduler(version=SCHEDULER, quantum=self.quantum, seed=self.seed)

    def plugin(self, library: Path, vcpus: int, fd: int) -> str:
        """Return the value of -plugin that records the schedule in the inherited file `fd`."""
        return f"{library},record={fd},vcpus={vcpus},quantum={self.quantum},seed={self.seed}"


def replaying_plugin(library: Path, vcpus: int, fd: int) -> str:
    """Return the value of -plugin that replays the schedule in `fd` (Schedule.table)."""
    return f"{library},replay={fd},vcpus={vcpus}"


def must_take_processors(qemu: Qemu, board: MachineType, vcpus: int) -> None:
    """Raise UsageError where a board has not so many processors, or they cannot be devices."""
    if not board.plugs_vcpus:
        raise UsageError(
            f"{vcpus} processors cannot be recorded on {board.name}: on this board they cannot "
            "be added as devices, and QEMU records with one.",
            "Use -M pc or -M q35, or -smp 1.",
        )
    if vcpus > board.most_vcpus:
        raise UsageError(
            f"{board.name} of {qemu.path.name} takes {board.most_vcpus} processors, not {vcpus}.",
            "Use fewer.",
        )


def must_be_alone(recording: Recording) -> None:
    """Raise UsageError for a recording of several processors, where one is all that is known."""
    vcpus = recording.manifest.machine.vcpus
    if vcpus > 1:
        raise UsageError(
            f"{recording.name} has {vcpus} processors: it cannot be walked through yet.",
            "`retrograde replay` and `retrograde verify` take it.",
        )


def require_scheduler(qemu: Path) -> Path:
    """Return the scheduler's library that `qemu` takes, tried on a machine without processors.

    Raises EnvironmentLacks, with what it said, when this QEMU has no plugins, keeps to itself
    what the scheduler needs, or is not made as that expects; and as `build_scheduler` does.
    """
    said = ""
    for api in APIS:
        library = build_scheduler(api)
        done = _try(qemu, library)
        if done == "":
            return library
        # One that takes the other version of plugins says so first.
        said = done if "scheduler:" in done or not said else said
    raise EnvironmentLacks(
        f"{qemu.name} cannot run several processors in turns.",
        "Install QEMU 10.0 or later built with plugins and modules; one processor needs none.",
        detail=said,
    )


def _try(qemu: Path, library: Path) -> str:
    """Return "" where `qemu` loads the scheduler, else what it says."""
    empty = os.memfd_create("no-schedule")
    try:
        plugin = replaying_plugin(library, MOST_VCPUS, empty)
        done = start_with(qemu, plugin, empty, "loading the scheduler")
    finally:
        os.close(empty)
    return "" if done.returncode == 0 else done.stderr.strip() or "It says nothing."
