"""Traces and pictures, read back with other people's readers."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

from retrograde.errors import UsageError
from retrograde.index.export import export
from retrograde.index.plot import plot
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.recording.bundle import Recording
from tests import command
from tests.recording.handmade import make_recording

MAIN, LEAF, OTHER = 0x1000, 0x2000, 0x3000
CALLS = [  # position, target, return, space
    (10, MAIN, 900, 0x5000),
    (20, LEAF, 30, 0x5000),
    (30, LEAF, 50, 0x5000),  # begins where the one before ends
    (40, LEAF, 50, 0x5000),  # ends with it
    (60, OTHER, 950, 0x5000),  # of another stack: ends after what it began in
    (70, LEAF, None, 0x5000),
    (300, MAIN, 400, 0x6000),
]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    recording = make_recording(tmp_path / "hand.retro")
    store = IndexStore(recording)
    store.claim("symbols", "a test")
    names = [column.name for column in TABLES["symbols"].columns]
    kinds = ((MAIN, "main"), (LEAF, "leaf"))
    symbols = [(at, 16, name, "T", None, True, None, None, None) for at, name in kinds]
    store.write("symbols", 0, 1001, dict(zip(names, zip(*symbols, strict=True), strict=True)))
    empty: dict[str, Any] = {column.name: [0] * len(CALLS) for column in TABLES["calls"].columns}
    keys = ("position", "target", "return_position", "space")
    store.write("calls", 0, 1000, empty | dict(zip(keys, zip(*CALLS, strict=True), strict=True)))
    return recording


def slices_of(path: Path) -> tuple[set[tuple[str, str, int, int]], dict[str, list[Any]]]:
    """Return (group, name, begin, end) of all slices, and instants by track."""
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    tracks: dict[int, tuple[str, int]] = {}
    names: dict[int, str] = {}
    begun: dict[int, list[tuple[int, str]]] = defaultdict(list)
    slices, instants, last = set(), defaultdict(list), 0
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id
        names |= {one.iid: one.name for one in packet.interned_data.event_names}
        described, event = packet.track_descriptor, packet.track_event
        if packet.HasField("track_descriptor"):
            name = described.name or described.process.process_name
            tracks[described.uuid] = (name, described.parent_uuid)
        elif event.type == event.TYPE_SLICE_BEGIN:
            assert packet.timestamp >= last
            begun[event.track_uuid].append((packet.timestamp, names[event.name_iid]))
        elif event.type == event.TYPE_SLICE_END:
            start, name = begun[event.track_uuid].pop()
            group = tracks[tracks[event.track_uuid][1]][0]
            slices.add((group, name, start, packet.timestamp))
        elif event.type == event.TYPE_INSTANT:
            track = tracks[event.track_uuid][0]
            instants[track].append((packet.timestamp, names[event.name_iid]))
        if event.type in (event.TYPE_SLICE_BEGIN, event.TYPE_SLICE_END):
            last = packet.timestamp
    assert not any(begun.values())
    return slices, instants


def expected(*positions: int) -> set[tuple[str, str, int, int]]:
    names = {MAIN: "main", LEAF: "leaf", OTHER: "0x3000"}
    return {
        (f"address space {space:#x}", names[target], position, returned)
        for position, target, returned, space in CALLS
        if position in positions and returned
    }


def test_all_that_happened_is_in_the_trace(recording: Recording, tmp_path: Path) -> None:
    told = export(recording, tmp_path / "out.pftrace")
    slices, instants = slices_of(tmp_path / "out.pftrace")
    assert slices == expected(10, 20, 30, 40, 60, 300)
    with IndexStore(recording).connect() as rows:
        console = rows.execute("SELECT position, text FROM console ORDER BY 1").fetchall()
        interrupts = rows.execute("SELECT position FROM interrupts ORDER BY 1").fetchall()
    assert instants["console"] == console != []
    assert instants["interrupts"] == [(position, "interrupt") for (position,) in interrupts]
    assert (told.calls, told.spaces, told.lines) == (6, 2, len(console))
    assert told.troubles == ()


def test_the_longest_calls_of_a_span(recording: Recording, tmp_path: Path) -> None:
    told = export(recording, tmp_path / "out.pftrace", start=15, stop=500, calls=2)
    slices, _instants = slices_of(tmp_path / "out.pftrace")
    assert slices == expected(30, 300)
    assert told.troubles == ("2 shorter calls were left out; --calls takes more.",)


def test_what_cannot_be_exported(recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No position is from 5 "):
        export(recording, tmp_path / "out", start=5, stop=4)
    with pytest.raises(UsageError, match="cannot be written"):
        export(recording, tmp_path / "nowhere" / "out")
    bare = make_recording(tmp_path / "bare.retro")
    run = command.retrograde("export", bare.path, "--perfetto", tmp_path / "out.pftrace")
    assert "There are no calls" in run.stderr
    assert slices_of(tmp_path / "out.pftrace")[0] == set()


def test_a_picture(recording: Recording, tmp_path: Path) -> None:
    command.retrograde("info", recording.path, "--plot", tmp_path / "out.svg")
    words = [text.text for text in ElementTree.parse(tmp_path / "out.svg").iter() if text.text]
    assert {"hand.retro", "calls", "interrupts", "position"} <= set(words)
    assert not any("not indexed" in word for word in words)
    plot(make_recording(tmp_path / "bare.retro"), tmp_path / "bare.svg")
    assert "not indexed" in (tmp_path / "bare.svg").read_text()
    with pytest.raises(UsageError, match="cannot be written"):
        plot(recording, tmp_path / "nowhere" / "out.svg")
