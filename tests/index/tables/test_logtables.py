"""The log's tables: every event that should be there, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.errors import LogCorrupt, RecordingError
from retrograde.index.tables.logtables import LOG_TABLES, build_log_tables, events
from retrograde.index.tables.store import IndexStore
from retrograde.recording import rrevents as rr
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.recording.manifest import encode_manifest
from retrograde.recording.rrevents import Event, Kind
from retrograde.recording.rrlog import RrLog
from tests.conftest import Record
from tests.recording.handmade import make_recording, replaced
from tests.recording.rrlog_writer import ENDING, FIRST, any_event, write

LEFT_OUT = {Kind.INSTRUCTION, Kind.INTERRUPT, Kind.EXCEPTION, Kind.CHAR_WRITE, Kind.END} | {
    kind for kind in Kind if kind.name.startswith("CHECKPOINT_")
} - {Kind.CHECKPOINT_RESET_REQUESTED}


def number_in(event: Event) -> int | None:
    for field in ("nanoseconds", "request", "scheduled", "played", "flags", "result", "error"):
        value: int | None = getattr(event, field, None)
        if value is not None:
            return value if value < 2**63 else value - 2**64
    return None


def device_of(event: Event) -> int | None:
    return getattr(event, "port", getattr(event, "filter", None))


def data_of(event: Event) -> bytes | None:
    return getattr(event, "data", getattr(event, "packet", None))


@given(found=st.lists(any_event(FIRST), max_size=60))
def test_events_are_those_of_the_log(
    tmp_path_factory: pytest.TempPathFactory, found: list[Event]
) -> None:
    data, placed = write((*found, *ENDING))
    path = tmp_path_factory.mktemp("log") / "replay.log"
    path.write_bytes(data)
    columns = events(RrLog.open(path, chunk_bytes=200))
    wanted = [event for event in placed if event.kind not in LEFT_OUT]
    names = [event.kind.name.lower() for event in wanted]
    assert columns["kind"].tolist() == [
        "reset" if name == "checkpoint_reset_requested" else name for name in names
    ]
    assert columns["position"].tolist() == [event.position for event in wanted]
    assert columns["log_byte"].tolist() == [event.offset for event in wanted]
    assert columns["device"].tolist() == [device_of(event) for event in wanted]
    assert columns["value"].tolist() == [number_in(event) for event in wanted]
    assert columns["data"].tolist() == [data_of(event) for event in wanted]
    details = [detail and json.loads(detail) for detail in columns["detail"].tolist()]
    assert [bool(detail) for detail in details] == [isinstance(e, rr.Input) for e in wanted]
    for detail, event in zip(details, wanted, strict=True):
        if isinstance(event, rr.Input):
            assert detail.pop("action") == type(event.action).__name__.lower()
            assert detail == msgspec.structs.asdict(event.action)


@pytest.mark.qemu
def test_a_whole_recording_adds_up(recorded: Record, tmp_path: Path) -> None:
    recording = recorded()
    log, console = list(recording.log().events()), recording.console_path.read_bytes()
    store = IndexStore(Recording(Folder.at(tmp_path), recording.manifest))
    assert build_log_tables(store, recording) == []
    with store.connect() as asked:
        for table, kind in (("interrupts", Kind.INTERRUPT), ("exceptions", Kind.EXCEPTION)):
            rows = asked.execute(f"SELECT position FROM {table}").fetchall()
            assert [row[0] for row in rows] == [e.position for e in log if e.kind == kind]
        kinds = dict(asked.execute("SELECT kind, count(*) FROM events GROUP BY kind").fetchall())
        counted = Counter(e.kind.name.lower() for e in log if e.kind not in LEFT_OUT)
        assert kinds == counted
        lines = asked.execute("SELECT position, last, console_byte, text FROM console").fetchall()
    # Every byte is in exactly one line, between its first and last position.
    assert b"".join(text.encode() + b"\n" for *_, text in lines) == console
    written = [e.position for e in log if isinstance(e, rr.CharWrite) for _ in range(e.written)]
    starts = [byte for _, _, byte, _ in lines]
    assert [first for first, *_ in lines] == [written[byte] for byte in starts]
    ends = [*(byte - 1 for byte in starts[1:]), len(console) - 1]
    assert [last for _, last, *_ in lines] == [written[byte] for byte in ends]


def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = make_recording(tmp_path / "hand.retro")
    store = IndexStore(recording)
    build_log_tables(store, recording)
    assert all(store.done(table) for table in LOG_TABLES)
    monkeypatch.delattr(Recording, "log")
    assert build_log_tables(IndexStore(recording), recording) == []


def test_a_console_that_cannot_be_placed_leaves_the_rest(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "hand.retro")
    recording.console_path.write_bytes(b"hell")  # fewer bytes than the log counts
    store = IndexStore(recording)
    (trouble,) = build_log_tables(store, recording)
    assert "no table console" in trouble
    assert "another serial port" in trouble
    assert [table for table in LOG_TABLES if not store.done(table)] == ["console"]


def test_a_damaged_log_is_no_empty_table(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "hand.retro")
    with recording.log_path.open("r+b") as file:
        file.seek(12)
        file.write(b"\xee")
    store = IndexStore(recording)
    with pytest.raises(LogCorrupt):
        build_log_tables(store, recording)
    assert not any(store.done(table) for table in LOG_TABLES)


def test_an_unfinished_recording_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "hand.retro")
    log = recording.log_path.read_bytes()
    recording.log_path.write_bytes(bytes(12) + log[12:-4])
    manifest = encode_manifest(replaced(recording, complete=False, files={}))
    (recording.path / "manifest.json").write_bytes(manifest)
    recording = Recording.open(recording.path)
    store = IndexStore(recording)
    assert build_log_tables(store, recording) == []
    with store.connect() as asked:
        assert asked.execute("SELECT text FROM console").fetchall() == [("hello",)]


def test_what_cannot_be_read_for_now_is_no_lack_of_the_recording(tmp_path: Path) -> None:
    """That the limit on open files is reached, say. The table is made the next time."""
    recording = make_recording(tmp_path / "hand.retro")
    store = IndexStore(recording)
    recording.console_path.rename(tmp_path / "elsewhere")
    with pytest.raises(RecordingError, match=r"no console\.log"):
        build_log_tables(store, recording)
    assert not store.done("console")
