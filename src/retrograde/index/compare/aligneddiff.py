"""Where the own control flow of two runs parts, whatever interrupts did in between.

`find_difference` compares instruction by instruction and so ends at the first interrupt
that came elsewhere. Here the calls are compared, those of each stack for themselves and
without those of interrupt handlers (see `align`); no machine is run but to read registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrograde.errors import UsageError
from retrograde.index.compare.align import Alignment, Calls, align
from retrograde.index.compare.callstacks import CallStacks, Stack
from retrograde.machine.gdb.targetdesc import RegisterValues
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline

Progress = Callable[[str], None]
Both = tuple[Recording, Recording]
Sizes = dict[Stack, int]

AT_ONCE: Final = 4_000_000
"""Calls of each recording in memory at once, unless a single stack has more."""


@dataclass(frozen=True)
class Call:
    """A call: where, by which instruction, of what."""

    position: int
    pc: int
    target: int


@dataclass(frozen=True)
class Parting:
    """The first call that differs: one in each recording, on the same stack.

    `before` is the last call there that both made, in each; None when there is none.
    """

    calls: tuple[Call, Call]
    before: tuple[Call, Call] | None


@dataclass(frozen=True)
class Comparison:
    """What comparing two recordings by their calls found.

    `calls` are in each recording, `common` in both; `skipped` are taken for calls of
    interrupt handlers; `alone` were made on stacks that the other recording does not have.
    `partings` are those of all stacks, by their positions in the first recording; `stacks`
    says how many pages of stack were compared.
    """

    calls: tuple[int, int]
    common: int
    skipped: tuple[int, int]
    alone: tuple[int, int]
    stacks: int
    partings: Sequence[Parting]

    @property
    def left(self) -> tuple[int, int]:
        """Calls behind where a stack parted, or where the other recording ended."""
        sides = zip(self.calls, self.skipped, self.alone, strict=True)
        ours, theirs = (calls - self.common - gone - alone for calls, gone, alone in sides)
        return ours, theirs


def compare_calls(
    first: Recording, second: Recording, progress: Progress = lambda _text: None
) -> Comparison:
    """Compare the calls of two recordings; interrupts may have come at other positions.

    Raises UsageError for recordings of different targets, or of which one has no index, or
    no calls, or that have no call in common, or few stacks.
    """
    targets = [recording.manifest.machine.target for recording in (first, second)]
    if targets[0] != targets[1]:
        raise UsageError(
            f"{first.name} is a recording of {targets[0]}, {second.name} of {targets[1]}.",
            "Compare two runs of one machine.",
        )
    with CallStacks(first) as ours, CallStacks(second) as theirs:
        progress("counting calls")
        sizes = ours.sizes(), theirs.sizes()
        both = [stack for stack in sizes[0] if stack in sizes[1]]
        calls, shared = _counted((first, second), sizes, both)
        found: list[tuple[Alignment, Parting | None]] = []
        for part in _batches(both, sizes):
            progress(f"comparing calls: {len(found)} of {len(both)} pages of stack")
            left, right = ours.read(part), theirs.read(part)
            found += [_compared(left[stack], right[stack]) for stack in part]
    common = sum(alignment.common for alignment, _ in found)
    if not common:
        raise UsageError(
            f"{first.name} and {second.name} have no call in common.",
            "Compare two runs of one machine, started with the same programs.",
        )
    partings = [parting for _, parting in found if parting]
    skipped = np.sum([alignment.skipped for alignment, _ in found], axis=0).tolist()
    return Comparison(
        calls=calls,
        common=common,
        skipped=(skipped[0], skipped[1]),
        alone=(calls[0] - shared[0], calls[1] - shared[1]),
        stacks=len(both),
        partings=sorted(partings, key=lambda parting: parting.calls[0].position),
    )


def _counted(
    recordings: Both, sizes: tuple[Sizes, Sizes], both: Sequence[Stack]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how many calls each has, and how many on stacks that both have."""
    for recording, size in zip(recordings, sizes, strict=True):
        if not size:
            raise UsageError(
                f"{recording.name} has no calls to compare.",
                "Calls are told on aarch64, ppc64, riscv64, and in 64-bit code on x86_64.",
            )
    ours, theirs = (sum(size.values()) for size in sizes)
    shared = tuple(sum(size[stack] for stack in both) for size in sizes)
    if shared[0] < ours / 2 and shared[1] < theirs / 2:
        raise UsageError(
            f"Most calls of {recordings[0].name} and {recordings[1].name} are on stacks at "
            "addresses that the other does not use.",
            "Record both with the same addresses: Linux takes nokaslr and norandmaps.",
        )
    return (ours, theirs), (shared[0], shared[1])


async def registers_at(recording: Recording, position: int) -> RegisterValues:
    """Return the registers of a recording at a position; raises as `Timeline.open` does."""
    async with await Timeline.open(recording) as timeline:
        await timeline.seek(position)
        return await timeline.registers()


def _batches(stacks: Sequence[Stack], sizes: tuple[Sizes, Sizes]) -> Iterator[list[Stack]]:
    batch: list[Stack] = []
    calls = 0
    for stack in stacks:
        more = max(size[stack] for size in sizes)
        if batch and calls + more > AT_ONCE:
            yield batch
            batch, calls = [], 0
        batch.append(stack)
        calls += more
    if batch:
        yield batch


def _compared(ours: Calls, theirs: Calls) -> tuple[Alignment, Parting | None]:
    found = align(ours, theirs)
    if not found.parted:
        return found, None
    both = ours, theirs

    def at(numbers: tuple[int, int]) -> tuple[Call, Call]:
        one, other = (_call(calls, n) for calls, n in zip(both, numbers, strict=True))
        return one, other

    return found, Parting(at(found.stop), at(found.last) if found.last else None)


def _call(calls: Calls, number: int) -> Call:
    return Call(*(int(column[number]) for column in (calls.position, calls.pc, calls.target)))
