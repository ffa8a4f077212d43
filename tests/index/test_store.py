"""The index on disk: what is written is read, and nothing else is."""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from retrograde.errors import EnvironmentLacks, InternalError, RecordingError
from retrograde.index.store import IndexStore
from retrograde.index.tables import TABLES
from retrograde.recording.bundle import Recording
from tests.recording.handmade import make_recording

HIGH = 2**64 - 1


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "hand.retro")


def contexts(*rows: tuple[int, str, int]) -> dict[str, Any]:
    position, kind, value = zip(*rows, strict=True)
    return {
        "position": np.array(position, np.uint64),
        "kind": list(kind),
        "value": np.array(value, np.uint64),
    }


def all_contexts(store: IndexStore) -> list[Any]:
    with store.connect() as connection:
        found: list[Any] = connection.execute("FROM context ORDER BY position").fetchall()
    return found


def test_reads_what_was_written(recording: Recording) -> None:
    store = IndexStore(recording)
    store.write("context", 500, 1000, contexts((600, "privilege", 3)))
    store.write("context", 0, 500, contexts((7, "space", HIGH), (8, "space", 0)))
    assert store.done("context") == [(0, 500), (500, 1000)]
    assert store.missing("context", [(0, 500), (500, 600)]) == [(500, 600)]
    again = IndexStore(recording)
    assert not again.dropped
    assert all_contexts(again) == [(7, "space", HIGH), (8, "space", 0), (600, "privilege", 3)]


def test_every_table_can_be_asked_before_it_is_built(recording: Recording) -> None:
    with IndexStore(recording).connect() as connection:
        for table in TABLES.values():
            cursor = connection.execute(f"FROM {table.name}")
            described = [(name, str(kind)) for name, kind, *_ in cursor.description]
            assert described == [(column.name, column.type) for column in table.columns]
            assert cursor.fetchall() == []


def test_every_table_keeps_its_types_on_disk(recording: Recording) -> None:
    store = IndexStore(recording)
    for table in TABLES.values():
        store.write(table.name, 0, 1, {column.name: [None] for column in table.columns})
        store.write(table.name, 1, 2, {column.name: [] for column in table.columns})
    with store.connect() as connection:
        for table in TABLES.values():
            cursor = connection.execute(f"FROM {table.name}")
            described = [(name, str(kind)) for name, kind, *_ in cursor.description]
            assert described == [(column.name, column.type) for column in table.columns]
            assert cursor.fetchall() == [(None,) * len(table.columns)]


def test_the_same_rows_give_the_same_bytes(recording: Recording) -> None:
    store = IndexStore(recording)
    rows = {"interval_first": np.zeros(400_000), "page": np.arange(400_000) * 4096}
    for first in (0, 1):
        bitmap = np.random.default_rng(1).integers(0, HIGH, 400_000, np.uint64)
        store.write("written", first, first + 1, rows | {"bitmap": bitmap, "device": bitmap})
    files = sorted((store.folder / "written").iterdir())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interval_written_twice_is_there_once(recording: Recording) -> None:
    store = IndexStore(recording)
    store.write("context", 0, 9, contexts((1, "space", 1)))
    store.write("context", 0, 9, contexts((2, "space", 2)))
    assert all_contexts(store) == [(2, "space", 2)]


def test_half_written_files_do_not_count(recording: Recording) -> None:
    store = IndexStore(recording)
    store.write("context", 0, 9, contexts((1, "space", 1)))
    whole = next((store.folder / "context").iterdir())
    # Of a process that is gone, of one that writes right now, and of another machine's.
    place = f"{whole.stem}.{re.sub('[^A-Za-z0-9_]', '-', platform.node())}"
    gone = whole.with_name(f"{place}.{2**22 + 1}.part")
    writing = whole.with_name(f"{place}.{os.getppid()}.part")
    elsewhere = whole.with_name(f"{whole.stem}.other-machine.{2**22 + 1}.part")
    for path in (gone, writing, elsewhere):
        path.write_bytes(whole.read_bytes()[:50])
    again = IndexStore(recording)
    assert again.done("context") == [(0, 9)]
    assert not gone.exists()
    assert writing.exists()
    assert elsewhere.exists()


def test_another_recording_under_this_name(recording: Recording, tmp_path: Path) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))
    meta = recording.cache / "index" / "meta.json"
    document = msgspec.json.decode(meta.read_bytes())
    document["recording"] = "0" * 64
    meta.write_bytes(msgspec.json.encode(document))
    store = IndexStore(recording)
    assert store.dropped == ["the index was made from another recording"]
    assert all_contexts(store) == []
    assert not IndexStore(recording).dropped


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 0, "recording": ""}', b"\xff"])
def test_meta_that_cannot_be_read(recording: Recording, content: bytes) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))
    (recording.cache / "index" / "meta.json").write_bytes(content)
    store = IndexStore(recording)
    assert store.dropped == ["the index was damaged or of another version"]
    assert store.done("context") == []


def test_a_table_of_another_version_is_made_anew(recording: Recording) -> None:
    store = IndexStore(recording)
    store.write("context", 0, 9, contexts((1, "space", 1)))
    store.write("interrupts", 0, 9, {"position": [3]})
    meta = recording.cache / "index" / "meta.json"
    document = msgspec.json.decode(meta.read_bytes())
    document["versions"]["context"] = 0
    meta.write_bytes(msgspec.json.encode(document))
    store = IndexStore(recording)
    assert store.dropped == ["context was of version 0"]
    assert (store.done("context"), store.done("interrupts")) == ([], [(0, 9)])


def test_what_another_maker_made_is_removed(recording: Recording) -> None:
    store = IndexStore(recording)
    store.claim("context", "probe 1")
    store.write("context", 0, 9, contexts((1, "space", 1)))
    store.claim("context", "probe 1")
    assert store.done("context") == [(0, 9)]
    store.claim("context", "probe 2")
    assert store.done("context") == []
    assert store.dropped == ["context was made by probe 1"]


def test_a_wrong_column_is_our_bug(recording: Recording) -> None:
    with pytest.raises(InternalError, match="columns of interrupts"):
        IndexStore(recording).write("interrupts", 0, 9, {"place": [1]})


def test_a_file_in_the_caches_place(recording: Recording) -> None:
    recording.cache.write_text("in the way")
    with pytest.raises(RecordingError, match="is not a directory"):
        IndexStore(recording)
    assert recording.cache.read_text() == "in the way"


def test_a_disk_that_fills_up_keeps_what_is_done(recording: Recording) -> None:
    store = IndexStore(recording)
    store.write("context", 0, 9, contexts((1, "space", 1)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(EnvironmentLacks, match="cannot be written"):
            store.write(
                "interrupts", 0, 9, {"position": np.random.default_rng(1).permutation(9999)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((store.folder / "interrupts").iterdir()) == []
    assert all_contexts(store) == [(1, "space", 1)]


def test_names_with_quotes(tmp_path: Path) -> None:
    store = IndexStore(make_recording(tmp_path / "it's; DROP.retro"))
    store.write("context", 0, 9, contexts((1, "space", 1)))
    assert all_contexts(store) == [(1, "space", 1)]
