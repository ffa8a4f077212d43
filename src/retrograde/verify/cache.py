"""Looking at all of a recording's cache: whether it is what was written."""

from __future__ import annotations

import contextlib

import msgspec

from retrograde.index.tables.store import IndexStore, has_index
from retrograde.index.tables.tables import TABLES
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import origin_of


class CacheCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found whole, and in `lost` what was damaged, in words.

    `checkpoints` are those made by the QEMU at hand.
    """

    checkpoints: int
    index_files: int
    lost: list[str]


def check_cache(recording: Recording, qemu: Qemu) -> CacheCheck:
    """Look at the checkpoints and the index of `recording`; what is damaged is used no more.

    Raises RecordingError where something else stands in the cache's place.
    """
    count, lost = 0, []
    store = CheckpointStore.open(recording, origin_of(recording, qemu))
    if store is not None:
        with contextlib.closing(store):
            if not store.is_whole():
                lost.append("checkpoints")
            count = len(store.checkpoints)
    files = 0
    if has_index(recording):
        index = IndexStore(recording)
        for table in TABLES:
            files += len(index.done(table))
            if gone := index.lost(table):
                lost.append(f"{len(gone)} files of the table {table}")
    return CacheCheck(checkpoints=count, index_files=files, lost=lost)
