"""The rr-log reader against a writer and a slow, obviously right parser."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrograde.errors import LogCorrupt, RecordingError
from retrograde.recording import rrevents as rr
from retrograde.recording.rrevents import Event, Kind
from retrograde.recording.rrlog import RrLog

from .rrlog_writer import (
    ENDING,
    FINALIZED,
    KILLED,
    SECOND,
    THIRD,
    VERSIONS,
    any_event,
    encode,
    header,
    save,
    write,
)

MANY = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CHUNKS = st.integers(64, 400)
LOGS = st.sampled_from(VERSIONS).flatmap(
    lambda version: st.tuples(st.just(version), st.lists(any_event(version), max_size=60))
)
PLACE = 0, 0
ONE_OF_EACH: list[Event] = [
    Event(Kind.CHECKPOINT_INIT, *PLACE),
    rr.Instruction(Kind.INSTRUCTION, *PLACE, 1000),
    Event(Kind.INTERRUPT, *PLACE),
    rr.BottomHalf(Kind.BH_ONESHOT, *PLACE, 7),
    *(
        rr.Input(Kind.INPUT, *PLACE, action)
        for action in (
            rr.Key(30, "scan", down=True),
            rr.Key(2, "qcode", down=False),
            rr.Button(1, down=True),
            rr.Move(0, -5, absolute=False),
            rr.Move(1, 77, absolute=True),
            rr.Touch(1, 2, -1, 0, 9),
        )
    ),
    rr.CharRead(Kind.CHAR_READ, *PLACE, 3, b"ls\n"),
    rr.Block(Kind.BLOCK, *PLACE, 12),
    rr.Instruction(Kind.INSTRUCTION, *PLACE, 500),
    rr.Net(Kind.NET, *PLACE, 1, 2, b"packet" * 20),
    rr.CharWrite(Kind.CHAR_WRITE, *PLACE, 1, 1),
    rr.CharReadAll(Kind.CHAR_READ_ALL, *PLACE, b""),
    rr.CharReadAllError(Kind.CHAR_READ_ALL_ERROR, *PLACE, -11),
    rr.AudioOut(Kind.AUDIO_OUT, *PLACE, 441),
    rr.AudioIn(Kind.AUDIO_IN, *PLACE, 3, ((1, -1), (2, -2), (3, -3))),
    rr.Random(Kind.RANDOM, *PLACE, 0, b"dice"),
    rr.Instruction(Kind.INSTRUCTION, *PLACE, 3),
    rr.Clock(Kind.CLOCK_HOST, *PLACE, -1),
]


@dataclass
class Slow:
    """What a byte-by-byte reading of a log finds: events, where it stopped, and why."""

    found: list[tuple[int, int, int]]
    at: int
    position: int
    why: str  # "end", "cut" or "bad"


class BadEventError(Exception):
    pass


def read_slowly(log: bytes, version: int) -> Slow:
    source = io.BytesIO(log)
    source.seek(12)
    slow = Slow([], 12, 0, "cut")
    while slow.at < len(log):
        try:
            kind, passed = read_event(source, version)
        except EOFError:
            return slow
        except BadEventError:
            slow.why = "bad"
            return slow
        slow.found.append((kind, slow.position, slow.at))
        slow.position += passed
        slow.at = source.tell()
        if kind == 39:
            slow.why = "end" if slow.at == len(log) else "bad"
            return slow
    return slow


def read_event(source: io.BytesIO, version: int) -> tuple[int, int]:
    """One event: its kind and how many instructions it lets pass."""

    def number(size: int) -> int:
        raw = source.read(size)
        if len(raw) < size:
            raise EOFError
        return int.from_bytes(raw, "big")

    def skip(size: int) -> None:
        if size > 16 << 20:
            raise BadEventError
        if len(source.read(size)) < size:
            raise EOFError

    kind = number(1)
    if kind == 0:
        count = number(4)
        if not 0 < count < 2**31:
            raise BadEventError
        return kind, count
    if kind > 39 or kind == 21:
        raise BadEventError
    if kind in (3, 4, 8, 22, 25, 28, 29):
        skip(8)
    elif kind == 24:
        skip(4)
    elif kind == 5:
        skip_input(number, skip, version)
    elif kind == 26:
        frames, between = number(8), 8 if version < SECOND else 0
        if frames * 16 > 16 << 20:
            number(between)
            raise BadEventError
        skip(between)
        skip(frames * 16)
    elif kind in (7, 9, 23, 27):
        skip({7: 1, 9: 5, 23: 0, 27: 4}[kind])
        skip(number(4))
    return kind, 0


def skip_input(number, skip, version) -> None:
    action = number(4)
    if action > 4:
        raise BadEventError
    if action == 0 and version == THIRD:
        skip(5)
        return
    if action > 0:
        skip({1: 5, 2: 12, 3: 12, 4: 32}[action])
        return
    key = number(4)
    if key > 1:
        raise BadEventError
    skip(5 if key else 9)


def read_fast(log: RrLog) -> list[tuple[int, int, int]]:
    return [
        row
        for batch in log.batches()
        for row in zip(
            batch.kind.tolist(), batch.position.tolist(), batch.offset.tolist(), strict=True
        )
    ]


@MANY
@given(LOGS, CHUNKS)
def test_events_come_back_as_written(
    tmp_path: Path, told: tuple[int, list[Event]], chunk: int
) -> None:
    version, events = told
    data, placed = write([*events, *ENDING], header(version))
    log = RrLog.open(save(tmp_path / "log", data), chunk_bytes=chunk)
    assert list(log.events()) == placed
    assert read_fast(log) == [(e.kind, e.position, e.offset) for e in placed]


def test_every_kind_comes_back_as_written(tmp_path: Path) -> None:
    every = [Event(kind, *PLACE) for kind in Kind if len(encode(Event(kind, *PLACE))) == 1]
    kinds = {event.kind for event in [*ONE_OF_EACH, *ENDING]}
    data, placed = write([*ONE_OF_EACH, *ENDING])
    assert list(RrLog.open(save(tmp_path / "log", data)).events()) == placed
    assert kinds | {kind.kind for kind in every} == set(Kind)


@MANY
@given(LOGS, CHUNKS, st.data())
def test_damage_is_seen_as_by_the_slow_parser(
    tmp_path: Path, told: tuple[int, list[Event]], chunk: int, data: st.DataObject
) -> None:
    version, events = told
    log, _ = write([*events, *ENDING], data.draw(st.sampled_from([header(version), KILLED])))
    damaged = bytearray(log)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(12, len(log) - 1))] = data.draw(st.integers(0, 255))
    check_against_slow(tmp_path, bytes(damaged), chunk, version)


@MANY
@given(st.sampled_from(VERSIONS), st.booleans(), st.binary(max_size=600), CHUNKS)
def test_garbage_is_seen_as_by_the_slow_parser(
    tmp_path: Path, version: int, killed: bool, garbage: bytes, chunk: int
) -> None:
    begin = KILLED if killed else header(version)
    check_against_slow(tmp_path, begin + garbage, chunk, version)


def check_against_slow(tmp_path: Path, data: bytes, chunk: int, version: int) -> None:
    slow = read_slowly(data, version)
    log = RrLog.open(save(tmp_path / "log", data), unfinished=version, chunk_bytes=chunk)
    salvaged = RrLog.open(log.path, salvage=True, unfinished=version, chunk_bytes=chunk)
    if slow.why == "bad":
        for refused in (log, salvaged):
            with pytest.raises(LogCorrupt, match=rf"byte {slow.at:_}, position {slow.position:_}"):
                read_fast(refused)
        return
    assert read_fast(salvaged) == slow.found
    assert salvaged.summary().tail_bytes == len(data) - slow.at
    assert len(list(salvaged.events())) == len(slow.found)
    if slow.why == "cut" and log.finalized:
        with pytest.raises(LogCorrupt, match=rf"byte {slow.at:_}, position {slow.position:_}"):
            list(log.events())


def test_cut_at_every_byte(tmp_path: Path) -> None:
    data, placed = write([*ONE_OF_EACH, *ENDING])
    for size in range(12, len(data)):
        whole = [e for e in placed if e.offset + len(encode(e)) <= size]
        after = whole[-1].offset + len(encode(whole[-1])) if whole else 12
        killed = RrLog.open(save(tmp_path / "killed", KILLED + data[12:size]), chunk_bytes=64)
        assert list(killed.events()) == whole
        summary = killed.summary()
        assert (summary.tail_bytes, summary.ended) == (size - after, False)
        cut = RrLog.open(save(tmp_path / "cut", data[:size]), chunk_bytes=64)
        with pytest.raises(LogCorrupt, match=f"cut off: the event at byte {after:_}"):
            list(cut.events())
        assert list(RrLog.open(cut.path, salvage=True).events()) == whole


@pytest.mark.parametrize("size", range(12))
def test_a_recorder_killed_before_its_first_write(tmp_path: Path, size: int) -> None:
    log = RrLog.open(save(tmp_path / "log", bytes(size)))
    summary = log.summary()
    assert (list(log.events()), log.finalized) == ([], False)
    assert (summary.end, summary.bytes, summary.tail_bytes) == (0, size, 0)


def test_arrays_longer_than_a_chunk(tmp_path: Path) -> None:
    packet = bytes(range(256)) * 1000
    events = [
        rr.Instruction(Kind.INSTRUCTION, *PLACE, 5),
        rr.Net(Kind.NET, *PLACE, 0, 0, packet),
        rr.Instruction(Kind.INSTRUCTION, *PLACE, 6),
        rr.Random(Kind.RANDOM, *PLACE, 0, packet[::-1]),
    ]
    data, placed = write([*events, *ENDING])
    for chunk in (64, 100, 4096, 1 << 20):
        log = RrLog.open(save(tmp_path / "log", data), chunk_bytes=chunk)
        assert list(log.events()) == placed
        assert log.summary().last_position == 11


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (b"\x15", "no event kind 21"),
        (b"\x28", "no event kind 40"),
        (b"\xff", "no event kind 255"),
        (b"\x00\x00\x00\x00\x00", "cannot count 0 instructions"),
        (b"\x00\x80\x00\x00\x00", "cannot count 2_147_483_648 instructions"),
        (b"\x1b" + bytes(4) + b"\x01\x00\x00\x01", "16_777_217 bytes are too many for one RANDOM"),
        (b"\x1a\x01" + bytes(15), "too many for one AUDIO_IN"),
        (b"\x05\x00\x00\x00\x05" + bytes(20), "no INPUT of type 5"),
        (b"\x05" + bytes(4) + b"\x00\x00\x00\x02" + bytes(20), "no INPUT key value of type 2"),
        (encode(ENDING[1]) + b"\x01", "follow the END event"),
    ],
)
@pytest.mark.parametrize("begin", [FINALIZED, KILLED])
def test_the_impossible_names_byte_and_position(
    tmp_path: Path, begin: bytes, event: bytes, why: str
) -> None:
    sound, placed = write(ONE_OF_EACH, begin)
    log = RrLog.open(save(tmp_path / "log", sound + event))
    seen: list[Event] = []
    with pytest.raises(LogCorrupt, match=why) as caught:
        seen.extend(log.events())
    assert [e for e in seen if e.kind != Kind.END] == placed
    at = len(sound) + (len(event) - 1 if event[0] == Kind.END else 0)
    assert f"byte {at:_}, position 1_503" in str(caught.value)


def test_a_position_no_icount_can_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrograde.recording.rrlog.MAX_POSITION", 1502)
    data, _ = write([*ONE_OF_EACH, *ENDING])
    with pytest.raises(LogCorrupt, match="position passes"):
        RrLog.open(save(tmp_path / "log", data)).summary()


@pytest.mark.parametrize(
    "begin",
    [header(VERSIONS[0] - 1), header(VERSIONS[-1] + 1), FINALIZED[:11] + b"\1", b"ELF"],
)
def test_other_headers_are_refused(tmp_path: Path, begin: bytes) -> None:
    with pytest.raises(LogCorrupt, match="no rr log that retrograde knows") as caught:
        RrLog.open(save(tmp_path / "log", begin + encode(ENDING[1])))
    assert "11.1 (0x00e0200e)" in caught.value.remedy


def test_an_unfinished_log_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogCorrupt, match="it is 0x00e0200f"):
        RrLog.open(save(tmp_path / "log", KILLED), unfinished=VERSIONS[-1] + 1)


def keyboard_log(version: int, codes: rr.KeyCodes) -> list[Event]:
    return [
        rr.Instruction(Kind.INSTRUCTION, *PLACE, 7),
        rr.Input(Kind.INPUT, *PLACE, rr.Key(1, codes, down=True)),
        rr.AudioIn(Kind.AUDIO_IN, *PLACE, 2 if version < SECOND else None, ((3, -4),)),
        rr.Instruction(Kind.INSTRUCTION, *PLACE, 5),
    ]


@pytest.mark.parametrize(
    ("version", "codes"), list(zip(VERSIONS, ("qcode", "scan", "linux"), strict=True))
)
def test_what_differs_by_version(tmp_path: Path, version: int, codes: rr.KeyCodes) -> None:
    data, placed = write([*keyboard_log(version, codes), *ENDING], header(version))
    path = save(tmp_path / "log", data)
    assert list(RrLog.open(path, unfinished=VERSIONS[-1]).events()) == placed
    killed = RrLog.open(save(path, KILLED + data[12:]), unfinished=version)
    assert list(killed.events()) == placed
    assert not killed.finalized


LOGS_OF_QEMU = Path(__file__).parent / "logs"
REST = [rr.Button(2, down=True), rr.Move(1, -5, absolute=False), rr.Move(0, 4711, absolute=True)]
QCODES = [
    rr.Key(36, "qcode", down=True),
    rr.Key(36, "qcode", down=False),
    rr.Key(35, "qcode", down=True),
]
LINUX = [
    rr.Key(30, "linux", down=True),
    rr.Key(30, "linux", down=False),
    rr.Key(28, "linux", down=True),
]


@pytest.mark.parametrize(("name", "keys"), [("00e0200c", QCODES), ("00e0200e", LINUX)])
def test_what_qemu_wrote(name: str, keys: list[rr.InputAction]) -> None:
    """Logs made by logs/make.py, of QEMU 10.0.2 and 11.1.3."""
    log = RrLog.open(LOGS_OF_QEMU / f"{name}.log")
    assert f"{log.layout.version:08x}" == name
    summary = log.summary()
    assert (summary.ended, summary.tail_bytes) == (True, 0)
    assert summary.shutdown == "host-qmp-quit"
    inputs = [event for event in log.events({Kind.INPUT}) if isinstance(event, rr.Input)]
    assert [event.action for event in inputs] == [*keys, *REST]


def test_a_missing_log_is_a_recording_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        RrLog.open(tmp_path / "none")


@MANY
@given(
    LOGS,
    st.sets(st.sampled_from(list(Kind))),
    st.integers(0, 2**33),
    st.one_of(st.none(), st.integers(0, 2**34)),
)
def test_events_of_some_kinds_and_positions(
    tmp_path: Path,
    told: tuple[int, list[Event]],
    kinds: set[Kind],
    start: int,
    stop: int | None,
) -> None:
    version, events = told
    data, placed = write([*events, *ENDING], header(version))
    log = RrLog.open(save(tmp_path / "log", data), chunk_bytes=100)
    assert list(log.events(kinds, start, stop)) == [
        event
        for event in placed
        if event.kind in kinds
        and event.position >= start
        and (stop is None or event.position < stop)
    ]


def test_summary(tmp_path: Path) -> None:
    run = rr.Instruction(Kind.INSTRUCTION, *PLACE, 10)
    off = rr.Shutdown(Kind.SHUTDOWN_GUEST_SHUTDOWN, *PLACE, "guest-shutdown")
    data, _ = write([run, run, off, run, *ENDING])
    summary = RrLog.open(save(tmp_path / "log", data)).summary()
    assert summary.counts == {
        Kind.INSTRUCTION: 3,
        Kind.SHUTDOWN_GUEST_SHUTDOWN: 1,
        Kind.SHUTDOWN_HOST_SIGNAL: 1,
        Kind.END: 1,
    }
    assert (summary.end, summary.last_position, summary.shutdown) == (20, 30, "guest-shutdown")
    assert (summary.ended, summary.finalized, summary.bytes) == (True, True, len(data))


def test_a_log_cut_off_ends_before_its_last_instructions(tmp_path: Path) -> None:
    run = rr.Instruction(Kind.INSTRUCTION, *PLACE, 10)
    data, _ = write([run, run, Event(Kind.INTERRUPT, *PLACE), run], KILLED)
    summary = RrLog.open(save(tmp_path / "log", data)).summary()
    assert (summary.end, summary.last_position, summary.shutdown) == (20, 30, None)
