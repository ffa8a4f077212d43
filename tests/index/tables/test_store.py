"""The index on disk: what is written is read, and nothing else is."""

from __future__ import annotations

import errno
import os
import platform
import random
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrograde.errors import EnvironmentLacks, InternalError, RecordingError
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from tests.damage import cut, document, flip, rewrite, spoil
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


def test_reads_what_was_written(recording: Recording, caplog: pytest.LogCaptureFixture) -> None:
    store = IndexStore(recording)
    store.write("context", 500, 1000, contexts((600, "privilege", 3)))
    store.write("context", 0, 500, contexts((7, "space", HIGH), (8, "space", 0)))
    assert store.done("context") == [(0, 500), (500, 1000)]
    assert store.missing("context", [(0, 500), (500, 600)]) == [(500, 600)]
    again = IndexStore(recording)
    assert caplog.messages == []
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


def test_a_table_is_known_to_be_large_whose_first_file_is_empty(recording: Recording) -> None:
    """By that DuckDB decides which side of a join it reads whole (calls or names)."""
    store, rows = IndexStore(recording), 5000
    names = {column.name: column.type for column in TABLES["calls"].columns}
    store.write("calls", 0, 10, {name: [] for name in names})
    for start in range(10, 40, 10):
        values = np.random.default_rng(start).integers(0, 1 << 62, rows, np.uint64)
        calls = {name: [None] * rows for name in names} | {"position": values, "target": values}
        store.write("calls", start, start + 10, calls)
    with store.connect() as connection:
        query = "EXPLAIN (FORMAT json) SELECT position, target FROM calls"
        (_, plan), *_ = connection.execute(query).fetchall()
        (estimate,) = re.findall(r'"Estimated Cardinality": "?(\d+)', plan)
        assert int(estimate) > rows


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
    interval = whole.name.split(".")[0]
    place = f"{interval}.{re.sub('[^A-Za-z0-9_]', '-', platform.node())}"
    gone = whole.with_name(f"{place}.{2**22 + 1}.part")
    writing = whole.with_name(f"{place}.{os.getppid()}.part")
    elsewhere = whole.with_name(f"{interval}.other-machine.{2**22 + 1}.part")
    for path in (gone, writing, elsewhere):
        path.write_bytes(whole.read_bytes()[:50])
    again = IndexStore(recording)
    assert again.done("context") == [(0, 9)]
    assert not gone.exists()
    assert writing.exists()
    assert elsewhere.exists()


def test_another_recording_under_this_name(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))
    rewrite(recording.cache / "index" / "meta.json", recording="0" * 64)
    assert all_contexts(IndexStore(recording)) == []
    IndexStore(recording)
    assert caplog.messages == ["Made anew: the index was made from another recording."]


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 0, "recording": ""}', b"\xff"])
def test_meta_that_cannot_be_read(
    recording: Recording, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))
    spoil(recording.cache / "index" / "meta.json", content)
    assert IndexStore(recording).done("context") == []
    assert caplog.messages == ["Made anew: the index was damaged or of another version."]


@pytest.mark.parametrize("name", ["meta.json", "meta.copy.json"])
def test_one_damaged_meta_costs_nothing(
    recording: Recording, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))
    meta = recording.cache / "index" / name
    before = meta.read_bytes()
    flip(meta, random.Random(1))
    assert IndexStore(recording).done("context") == [(0, 9)]
    assert caplog.messages == [f"{meta} was damaged: its copy is used."]
    assert meta.read_bytes() == before


@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_rows_are_lost_and_can_be_made_again(
    recording: Recording,
    damage: Callable[[Path, random.Random], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = IndexStore(recording)
    for first in (0, 9):
        store.write("context", first, first + 9, contexts((first, "space", 1)))
    files = sorted((store.folder / "context").iterdir())
    damage(files[0], random.Random(7))
    for _ in range(2):  # it is remembered that there were rows
        store = IndexStore(recording)
        assert store.done("context") == [(9, 18)]
        assert store.lost("context") == [(0, 9)]
        assert all_contexts(store) == [(9, "space", 1)]
        with pytest.raises(RecordingError, match="between 0 and 9 were damaged"):
            store.require_whole("context")
    assert caplog.messages == [f"{store.folder}/context: 1 of 2 files damaged, not used."]
    store.write("context", 0, 9, contexts((0, "space", 1)))
    store.require_whole("context")
    assert sorted((store.folder / "context").iterdir()) == files


def test_a_limit_on_files_is_no_damage(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))
    store = IndexStore(recording)

    def full(_folder: Folder, _name: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open", full)
        with pytest.raises(OSError, match="Too many open files"):
            store.done("context")
    assert store.done("context") == [(0, 9)]


def test_what_the_disk_does_not_read_now_is_read_another_time(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    IndexStore(recording).write("context", 0, 9, contexts((1, "space", 1)))

    def bad(_folder: Folder, _name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        store = IndexStore(recording)
        patch.setattr(Folder, "open", bad)
        assert store.done("context") == []
        assert store.lost("context") == [(0, 9)]
    assert IndexStore(recording).done("context") == [(0, 9)]


def test_an_empty_file_in_the_place_of_rows_is_not_taken_for_none(recording: Recording) -> None:
    store = IndexStore(recording)
    store.write("context", 0, 9, contexts((1, "space", 1)))
    store.write("context", 9, 18, {column.name: [] for column in TABLES["context"].columns})
    rows, empty = sorted((store.folder / "context").iterdir())
    shutil.copy(empty, rows)
    assert IndexStore(recording).lost("context") == [(0, 9)]


def test_a_table_of_another_version_is_made_anew(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    store = IndexStore(recording)
    store.write("context", 0, 9, contexts((1, "space", 1)))
    store.write("interrupts", 0, 9, {"position": [3]})
    meta = recording.cache / "index" / "meta.json"
    rewrite(meta, versions=document(meta)["versions"] | {"context": 0})
    store = IndexStore(recording)
    assert caplog.messages == ["Made anew: context was of version 0."]
    assert (store.done("context"), store.done("interrupts")) == ([], [(0, 9)])


def test_what_another_maker_made_is_removed(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    store = IndexStore(recording)
    store.claim("context", "probe 1")
    store.write("context", 0, 9, contexts((1, "space", 1)))
    store.claim("context", "probe 1")
    assert store.done("context") == [(0, 9)]
    store.claim("context", "probe 2")
    assert store.done("context") == []
    assert caplog.messages == ["Made anew: context was made by probe 1."]


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


def test_duckdb_shows_no_bar_of_its_own(recording: Recording) -> None:
    """It is shown after two seconds, on stdout, where answers go."""
    with IndexStore(recording).connect(()) as connection:
        asked = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    assert asked == [(False,)]
