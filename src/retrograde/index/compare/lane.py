"""One thread's instructions in two runs, compared as they come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrograde.index.compare.codepages import Addresses, CodePages

Positions = NDArray[np.int64]

Kind: TypeAlias = Literal["clock", "call", "input", "start", "thread", "signal", "end", "unknown"]

FARTHEST: Final = 1 << 20
"""Instructions of each run looked through for where two ways meet again."""
HISTORY: Final = 1 << 21
"""Common instructions whose positions are remembered."""


@dataclass(frozen=True)
class Cause:
    """What a difference comes from, and that in words.

    "clock" is the time; "call" what another system call gave; "input" what another instruction
    took from the processor; "start" the arguments and the environment; "thread" what another
    thread or process wrote; "signal" that the kernel led a thread elsewhere; "end" that a
    thread ended; "unknown" none that could be told.
    """

    kind: Kind
    what: str


@dataclass
class Run:
    """Instructions of a thread in one run that the other was not found to have yet."""

    addresses: Addresses = field(default_factory=lambda: np.zeros(0, np.uint64))
    positions: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    ended: bool = False

    def __len__(self) -> int:
        return len(self.addresses)

    def push(self, addresses: Addresses, positions: Positions) -> None:
        """Take in what comes next."""
        self.addresses = np.concatenate([self.addresses, addresses])
        self.positions = np.concatenate([self.positions, positions])

    def drop(self, count: int) -> None:
        """Forget the first ones."""
        self.addresses, self.positions = self.addresses[count:], self.positions[count:]


class Common:
    """The newest instructions that both runs of a thread had: addresses in ours, positions."""

    def __init__(self) -> None:
        self.addresses = np.zeros(0, np.uint64)
        self.positions = np.zeros((2, 0), np.int64)
        self.count = 0
        self.gaps: list[tuple[int, Cause]] = []
        """Differences passed over: the number of the first instruction after each, and why."""

    @property
    def forgotten(self) -> int:
        """How many came before those that are remembered."""
        return self.count - len(self.addresses)

    def add(self, addresses: Addresses, positions: Positions) -> None:
        """Take in what comes next; `positions` has a row for each run."""
        self.count += len(addresses)
        self.addresses = np.append(self.addresses, addresses)[-HISTORY:]
        self.positions = np.append(self.positions, positions, axis=1)[:, -HISTORY:]


class Lane:
    """A thread in both runs. What is equal is passed as soon as both have it."""

    def __init__(self, pages: CodePages) -> None:
        self.runs = Run(), Run()
        self.common = Common()
        self.count = 0
        """Instructions of ours found equal, or passed over."""
        self.is_parted = False
        self.differs = False
        self._pages = pages

    def advance(self) -> tuple[int, int] | None:
        """Pass what is equal; return the addresses that are next, where they may differ."""
        ours, theirs = self.runs
        if not self.differs:
            size = self._pages.equal(ours.addresses, theirs.addresses)
            positions = np.stack([run.positions[:size] for run in self.runs])
            self.common.add(ours.addresses[:size], positions)
            self.skip((size, size))
        self.differs = bool(len(ours) and len(theirs))
        return (int(ours.addresses[0]), int(theirs.addresses[0])) if self.differs else None

    @property
    def sees_enough(self) -> bool:
        """Whether there is all to tell where two ways meet again."""
        return all(run.ended or len(run) >= FARTHEST for run in self.runs)

    def pass_over(self, counts: tuple[int, int], cause: Cause) -> None:
        """Pass instructions of each run that are not the same."""
        self.common.gaps.append((self.common.count, cause))
        self.skip(counts)

    def skip(self, counts: tuple[int, int]) -> None:
        """Pass instructions of each run."""
        for run, count in zip(self.runs, counts, strict=True):
            run.drop(count)
        self.differs = False
        self.count += counts[0]
