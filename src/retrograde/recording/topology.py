"""How the processors of a machine lie together: what `-smp` says, and the place of each.

QEMU records with one processor on its command line only; the others are devices of their
own, each at its place (commandline.command).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_VCPUS = 64
"""Processors a machine may have; the scheduler has room for so many (probe/scheduler.h)."""

LEVELS = ("sockets", "dies", "modules", "cores", "threads")
"""From the outside in; the last of them changes fastest (x86_topo_ids_from_idx in QEMU)."""

SCHEDULED_TARGETS = frozenset({"x86_64"})
"""Targets whose processors can be scheduled (docs/scheduler.md)."""


@dataclass(frozen=True)
class Topology:
    """`cpus` processors of `maxcpus` that there is room for; `counts` are those of LEVELS."""

    cpus: int
    maxcpus: int
    counts: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Topology:
        """Work out what `-smp` leaves out, as QEMU does since 6.2 (hw/core/machine-smp.c).

        Raises ValueError, with a clause that says why, for what QEMU would refuse.
        """
        given = dict(pairs)
        if unknown := [key for key in given if key not in ("cpus", "maxcpus", *LEVELS)]:
            raise ValueError(f"{unknown[0]} of processors are not known on this target")
        number = {key: int(text) for key, text in given.items() if text.isdecimal()}
        if len(number) < len(given) or 0 in number.values():
            raise ValueError("a number of processors is no number")
        room = number.get("maxcpus") or number.get("cpus", 0)
        counts = {level: number.get(level, 0) for level in LEVELS}
        for level in ("dies", "modules"):
            counts[level] = counts[level] or 1
        for level in ("cores", "sockets", "threads"):
            if not counts[level]:
                others = [counts[other] or 1 for other in LEVELS if other != level]
                counts[level] = max(room // math.prod(others), 1)
        product = math.prod(counts.values())
        found = cls(number.get("cpus") or room or product, room or product, tuple(counts.values()))
        if product != found.maxcpus:
            raise ValueError(f"it has {product} places where maxcpus is {found.maxcpus}")
        if found.cpus > found.maxcpus:
            raise ValueError(f"it has {found.maxcpus} places for {found.cpus} processors")
        if found.cpus > MOST_VCPUS:
            raise ValueError(f"{found.cpus} processors are more than {MOST_VCPUS}")
        return found

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return all of it as properties of `-smp`; levels of which there is one only if usual."""
        levels = [
            (level, str(count))
            for level, count in zip(LEVELS, self.counts, strict=True)
            if count > 1 or level not in ("dies", "modules")
        ]
        return (("cpus", str(self.cpus)), ("maxcpus", str(self.maxcpus)), *levels)

    def place(self, number: int) -> tuple[tuple[str, str], ...]:
        """Return the properties that put processor `number` where it belongs."""
        found = []
        for level, count in zip(reversed(LEVELS), reversed(self.counts), strict=True):
            if count > 1 or level not in ("dies", "modules"):
                found.append((f"{level.removesuffix('s')}-id", str(number % count)))
            number //= count
        return tuple(reversed(found))
