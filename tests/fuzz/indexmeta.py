"""Fuzz target: meta.json of an index, which a stranger may have written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from retrograde.index.tables.files import META
from retrograde.index.tables.store import FOLDER, FORMAT, IndexStore, Meta
from retrograde.index.tables.tables import TABLES
from retrograde.recording.bundle import LOG
from retrograde.recording.sealed import copy_of
from tests.fuzz.mutation import change_json as mutate  # noqa: F401 - part of a target
from tests.fuzz.mutation import sealed
from tests.recording.handmade import make_recording

MAKER = "a maker"

_RECORDED = "replay"
_VERSIONS = {table.name: table.version for table in TABLES.values()}
_MAKERS = dict.fromkeys(TABLES, MAKER)

MOST = 1500

SEEDS = tuple(
    msgspec.json.encode(one)
    for one in (
        Meta(FORMAT, _RECORDED, _VERSIONS, _MAKERS),
        Meta(FORMAT, _RECORDED, _VERSIONS | {"blocks": 0, "../x": 1}, {"blocks": "\x1b]0;x\x07"}),
        Meta(FORMAT, "other"),
        Meta(FORMAT + 1, _RECORDED),
        {},
    )
)
"""`recording` is that of the recording where it says `replay`."""


class _Log(logging.Handler):
    """What the store warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def open_target(place: Path) -> Callable[[bytes], None]:
    recording = make_recording(place / "a.retro")
    digest = recording.manifest.files[LOG].sha256.encode()
    folder = recording.open_cache(make=True).folder(FOLDER, make=True).path
    before = sorted(recording.path.iterdir())
    log = _Log()
    logging.getLogger("retrograde").addHandler(log)

    def one_input(data: bytes) -> None:
        for name in (META, copy_of(META)):
            (folder / name).write_bytes(sealed(data.replace(_RECORDED.encode(), digest)))
        log.told.clear()
        store = IndexStore(recording)
        store.claim("blocks", MAKER)
        told = "".join(log.told)
        assert len(told) < 5000
        assert all(c == "\n" or c >= " " for c in told)
        # What is there now is ours, and opens without a word.
        log.told.clear()
        IndexStore(recording)
        assert log.told == []
        assert sorted(recording.path.iterdir()) == before

    return one_input
