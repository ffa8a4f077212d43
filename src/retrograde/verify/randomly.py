"""Random operations of the timeline, each compared with the oracle.

Operations cluster in patches of a few hundred positions, half of them around an
interrupt or exception; where there are disks, half around a request that is done, and half of
the others so. The timeline works in a few patches at a time, in no order;
afterwards the oracle walks through all patches once, in rising order, so that a
thousand operations cost one replay. All choices come from the seed and from what the
timeline answered, so a seed repeats a run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from retrograde.errors import Divergence
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.timeline import Timeline
from retrograde.verify.oracle import SETTLING, Oracle
from retrograde.verify.patch import Patch

Report = Callable[[str], None]

PATCH = 240
"""Positions of a patch: what the oracle steps through at about 1000 a second."""

PER_PATCH = 20
"""Operations in a patch."""

ACTIVE = 3
"""Patches worked in by turns."""

AWAY = 0.1
"""How often the next operation is in another patch."""

PER_PASS = 1000
"""Operations for one replay by the oracle."""


class RandomResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared. `kinds` counts the operations by name.

    `comparisons` counts states (registers, RAM digest, memory) and found or missed hits.
    """

    operations: int
    comparisons: int
    seed: int
    kinds: dict[str, int]


async def compare_randomly(
    recording: Recording,
    qemu: Qemu,
    *,
    count: int,
    seed: int,
    report: Report = lambda _text: None,
) -> RandomResult:
    """Do `count` random operations and compare each with a fresh forward replay.

    After each operation position, all registers, some memory and the digest of RAM are
    compared; of searches also what they found, and that they missed nothing. Without a
    probe (QEMU before 10.0) there are no searches. Raises Divergence at the lowest
    position that differs, naming the operation and what differs.
    """
    dice = random.Random(seed)  # noqa: S311 - choices, not secrets
    kinds: Counter[str] = Counter()
    comparisons = 0
    async with await Timeline.open(recording, qemu) as timeline:
        while kinds.total() < count:
            wanted = min(PER_PASS, count - kinds.total())
            report(f"random operations: {kinds.total()} of {count}")
            patches = _patches(timeline.facts, recording.end, -(-wanted // PER_PATCH), dice)
            await _operate(timeline, patches, wanted, dice)
            report(f"random operations: comparing {kinds.total()} to {kinds.total() + wanted}")
            comparisons += await _compare(recording, qemu, timeline.facts, patches, seed)
            for patch in patches:
                kinds.update(patch.kinds)
    return RandomResult(
        operations=kinds.total(), comparisons=comparisons, seed=seed, kinds=dict(kinds)
    )


async def _operate(
    timeline: Timeline, patches: Sequence[Patch], count: int, dice: random.Random
) -> None:
    """Do `count` operations, spread over `patches`."""
    waiting = list(patches)
    dice.shuffle(waiting)
    active: list[Patch] = []
    patch: Patch | None = None
    for _ in range(count):
        active = [one for one in active if one.kinds.total() < PER_PATCH]
        while waiting and len(active) < ACTIVE:
            active.append(waiting.pop())
        if patch is None or patch not in active or dice.random() < AWAY:
            patch = dice.choice(active)
        await patch.operate(timeline, dice)


async def _compare(
    recording: Recording, qemu: Qemu, facts: LogFacts, patches: Sequence[Patch], seed: int
) -> int:
    """Let the oracle check all that was claimed; return how many claims."""
    async with await Oracle.start(recording, qemu, facts) as oracle:
        try:
            return sum([await patch.check(oracle) for patch in sorted(patches, key=_start)])
        except Divergence as error:
            raise Divergence(f"{error.what} (seed {seed})", error.remedy, error.detail) from error


def _start(patch: Patch) -> int:
    return patch.start


def _patches(facts: LogFacts, end: int, count: int, dice: random.Random) -> list[Patch]:
    """Choose up to `count` spans that the oracle can reach one after the other."""
    chosen: list[Patch] = []
    for start in _starts(facts, end, 20 * count, dice):
        reach = facts.clear_before(start + 1)
        patch = Patch(start, min(start + PATCH, end), reach)
        ahead, behind = patch.end + SETTLING, reach - SETTLING
        if all(behind > other.end or ahead < other.reach for other in chosen):
            chosen.append(patch)
        if len(chosen) == count:
            break
    return chosen


def _starts(facts: LogFacts, end: int, tries: int, dice: random.Random) -> Iterator[int]:
    kinds = [positions for positions in (facts.completions, facts.deliveries) if len(positions)]
    for _ in range(tries):
        events = next((one for one in kinds if dice.random() < 0.5), None)
        if events is not None:
            at = int(events[dice.randrange(len(events))]) - dice.randrange(PATCH)
        else:
            at = dice.randrange(end + 1)
        yield int(np.clip(at, 0, max(0, end - PATCH)))
