"""Fuzz target: meta.json of an index, which a stranger may have written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from retrograde.index.files import META
from retrograde.index.store import FOLDER, FORMAT, IndexStore, Meta
from retrograde.index.tables import TABLES
from retrograde.recording.bundle import LOG
from tests.fuzz.mutation import change_json as mutate  # noqa: F401 - part of a target
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


def open_target(place: Path) -> Callable[[bytes], None]:
    recording = make_recording(place / "a.retro")
    digest = recording.manifest.files[LOG].sha256.encode()
    folder = recording.open_cache(make=True).folder(FOLDER, make=True).path
    before = sorted(recording.path.iterdir())

    def one_input(data: bytes) -> None:
        (folder / META).write_bytes(data.replace(_RECORDED.encode(), digest))
        store = IndexStore(recording)
        assert store.made_by("blocks") is None
        store.claim("blocks", MAKER)
        told = "".join(store.dropped)
        assert len(told) < 5000
        assert all(c == "\n" or c >= " " for c in told)
        # What is there now is ours, and opens without a word.
        assert IndexStore(recording).dropped == []
        assert sorted(recording.path.iterdir()) == before

    return one_input
