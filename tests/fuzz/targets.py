"""The fuzz targets: what reads bytes that a stranger may have made, one module each.

A target has SEEDS, inputs to begin with, and MOST, the bytes that one may have.
`open_target(place)` returns the function that reads one input and raises when that breaks a
promise; `place` is an empty directory of its own in memory. `mutate(data, random)` returns an
input that is like `data`, where a change of single bytes would seldom pass the first check.

What once broke a target is kept in regressions/TARGET/.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

NAMES = (
    *("archive", "bookmarks", "checkpoints", "indexmeta", "manifest", "packets"),
    *("ports", "positions", "probepage", "qcow2", "rrlog", "schedule", "session"),
)

REGRESSIONS = Path(__file__).with_name("regressions")


class Target(Protocol):
    SEEDS: Sequence[bytes]
    MOST: int

    def open_target(self, place: Path) -> Callable[[bytes], None]: ...

    def mutate(self, data: bytes, chance: random.Random) -> bytes: ...


def load(name: str) -> Target:
    """Import a target."""
    return importlib.import_module(f"tests.fuzz.{name}")


def inputs_of(name: str) -> list[bytes]:
    """Return the inputs to begin with: the seeds, and what once broke the target."""
    kept = sorted((REGRESSIONS / name).glob("*"))
    return [*load(name).SEEDS, *(path.read_bytes() for path in kept)]
