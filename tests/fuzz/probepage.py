"""Fuzz target: the page shared with the probe, as a QEMU that was taken over may leave it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retrograde.errors import InternalError, QemuError, UsageError
from retrograde.machine.probe import page as layout
from retrograde.machine.probe.coverage import Coverage
from retrograde.machine.probe.probe import Capacity, Probe
from retrograde.machine.probe.record import data_of, number_of, numbers_of, pieces, touches
from tests.fuzz.mutation import change_bytes

ROOM = 4
"""Records of each kind."""

_AREAS = (*layout.TABLES, *layout.RINGS, *layout.COVERED)
_HEADER = layout.HEADER.itemsize


def _probe() -> Probe:
    positions = np.array([5, 9], np.uint64)
    room = Capacity(*[ROOM] * 9)
    return Probe(Path("probe.so"), positions, positions + np.uint64(1), capacity=room)


def _seed(which: int, fill: int) -> bytes:
    """Return a page as a well-meaning probe leaves it, with rows made of `fill`."""
    probe = _probe()
    header = np.frombuffer(bytearray(probe._map[:_HEADER]), layout.HEADER)
    for name in (*layout.RINGS, *layout.COVERED):
        header[name]["total"] = which % (2 * ROOM)
    header["loaded"] = layout.PAGE_VERSION
    header["generation"] = header["active_generation"] = 3
    rows = b"".join(
        bytes([fill + number]) * (ROOM * layout.ELEMENT[name].itemsize)
        for number, name in enumerate(_AREAS)
    )
    probe.close()
    return bytes([which]) + header.tobytes() + rows


def open_target(place: Path) -> Callable[[bytes], None]:
    probe = _probe()
    clean = bytes(probe._map[:_HEADER])
    offsets = [int(np.frombuffer(clean, layout.HEADER)[name]["offset"][0]) for name in _AREAS]
    coverage = Coverage(probe)

    def one_input(data: bytes) -> None:
        probe._map[: len(clean)] = clean
        coverage.arm(0)
        at = 1 + _HEADER
        probe._map[: len(data[1:at])] = data[1:at]
        for name, offset in zip(_AREAS, offsets, strict=True):
            rows = data[at : at + ROOM * layout.ELEMENT[name].itemsize]
            probe._map[offset : offset + len(rows)] = rows
            at += ROOM * layout.ELEMENT[name].itemsize
        reader = READERS[data[0] % len(READERS)] if data else READERS[0]
        try:
            reader(probe, coverage)
        except (QemuError, InternalError, UsageError) as error:
            assert len(str(error)) < 1000

    return one_input


def _hits(probe: Probe, coverage: Coverage) -> None:
    hits = probe.hits()
    assert len(hits) <= ROOM
    for hit in hits:
        assert len(data_of(hit)) <= layout.MOST_BYTES
        number_of(hit)
    last = probe.last_hit()
    assert (last is None) == (len(hits) == 0)
    touches(hits, 0, 1 << 40)


def _writes(probe: Probe, coverage: Coverage) -> None:
    writes = probe.writes()
    assert len(writes) <= ROOM
    numbers_of(writes)
    assert (pieces(writes).owners < len(writes)).all()


def _since(probe: Probe, coverage: Coverage) -> None:
    for number in (0, 3):
        found = probe.since("writes", number)
        assert found is None or len(found) <= ROOM


def _steps(probe: Probe, coverage: Coverage) -> None:
    assert len(probe.steps()) <= ROOM
    assert len(probe.changes()) <= ROOM
    probe.facts()
    probe.kept_all("steps")


def _coverage(probe: Probe, coverage: Coverage) -> None:
    covered = coverage.take()
    assert len(covered.pages) == len(covered.lines) <= ROOM
    assert max(map(len, (covered.blocks, covered.calls, covered.contexts, covered.traps))) <= ROOM


READERS = (_hits, _writes, _since, _steps, _coverage)
"""The first byte of an input chooses one."""

MOST = 2048

SEEDS = tuple(_seed(number, fill) for number in range(2 * len(READERS)) for fill in (0, 200))


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change a number of the header, or bytes anywhere."""
    if chance.randrange(2) or len(data) < 1 + _HEADER:
        return change_bytes(data, chance)
    at = 1 + 8 * chance.randrange(_HEADER // 8)
    old = int.from_bytes(data[at : at + 8], "little")
    values = (0, 1, ROOM, ROOM + 1, old + 1, old - 1, 1 << 32, 1 << 63, (1 << 64) - 1, old ^ 4096)
    return data[:at] + (chance.choice(values) % (1 << 64)).to_bytes(8, "little") + data[at + 8 :]
