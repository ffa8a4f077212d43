"""Fuzz target: index.json of the checkpoints, which a stranger may have written."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec

from retrograde.recording.bundle import IMAGE
from retrograde.recording.sealed import checksum, copy_of
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import (
    FOLDER,
    FORMAT,
    INDEX,
    PAGES,
    SUMS,
    TABLES,
    Checkpoint,
    Index,
    Origin,
)
from tests.fuzz.mutation import change_json as mutate  # noqa: F401 - part of a target
from tests.fuzz.mutation import sealed
from tests.recording.handmade import make_recording

RAM_PAGES = 2
ORIGIN = Origin(FORMAT, "0" * 64, "1" * 64, RAM_PAGES * 4096)
_POINTS = [
    Checkpoint(position=number * 100, registers="00ff" * 8, seconds=0.5) for number in range(4)
]
_SIZES = {PAGES: 8192, SUMS: 8, TABLES: len(_POINTS) * RAM_PAGES * 4, IMAGE: 4096}
_SUMS = {IMAGE: checksum(bytes(4096))}
_TABLE = checksum(bytes(RAM_PAGES * 4))

MOST = 1500

SEEDS = (
    msgspec.json.encode(Index(ORIGIN, _POINTS, _SIZES, _SUMS, 4 * [_TABLE], [100], proven=True)),
    msgspec.json.encode(Index(ORIGIN, _POINTS[:1], _SIZES | {TABLES: 8}, _SUMS, [_TABLE])),
    msgspec.json.encode(Index(ORIGIN, [], _SIZES, _SUMS)),
    b"{}",
)


def open_target(place: Path) -> Callable[[bytes], None]:
    recording = make_recording(place / "a.retro")
    folder = recording.open_cache(make=True).folder(FOLDER, make=True)
    for name, size in _SIZES.items():
        (folder.path / name).write_bytes(bytes(size))
    (folder.path / SUMS).write_bytes(2 * checksum(bytes(4096)).to_bytes(4, "little"))

    def one_input(data: bytes) -> None:
        for name in (INDEX, copy_of(INDEX)):
            (folder.path / name).write_bytes(sealed(data))
        store = CheckpointStore.open(recording, ORIGIN)
        if store is None:
            return
        points = list(store.checkpoints)
        assert all(a.position < b.position for a, b in itertools.pairwise(points))
        for point in points:
            assert 0 <= point.position < 1 << 63
            assert point.seconds >= 0
            assert len(store.table(point)) == RAM_PAGES
            is_found = store.before(point.position) is point
            assert is_found == (point in store.checkpoints)  # else it was damaged
            assert (store.ram_at(point.position) is not None) == is_found
        for point in list(store.checkpoints):
            store.distrust(point)
        assert not store.checkpoints
        store.close()

    return one_input
