"""Console bytes and positions, both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrograde.errors import PositionError, RecordingError, UsageError
from retrograde.recording import rrevents as rr
from retrograde.recording.console import ConsoleMap, Line
from retrograde.recording.rrevents import Event, Kind
from retrograde.recording.rrlog import RrLog

from .rrlog_writer import ENDING, FIRST, KILLED, any_event, save, write


def ran(count: int) -> Event:
    return rr.Instruction(Kind.INSTRUCTION, 0, 0, count)


def wrote(written: int, result: int | None = None) -> Event:
    result = written if result is None else result
    return rr.CharWrite(Kind.CHAR_WRITE, 0, 0, result, written)


def log_of(tmp_path: Path, events: list[Event], *, ended: bool = True) -> RrLog:
    data, _ = write([*events, *ENDING]) if ended else write(events, KILLED)
    return RrLog.open(save(tmp_path / "log", data))


def boot(tmp_path: Path) -> ConsoleMap:
    """b"ab" at 10, b"c\\n" at 15 and 16, b"abc" at 20."""
    events = [ran(10), wrote(2), ran(5), wrote(1), ran(1), wrote(1), ran(4), wrote(3), ran(9)]
    return ConsoleMap.of(log_of(tmp_path, events), b"abc\nabc")


def test_positions(tmp_path: Path) -> None:
    console = boot(tmp_path)
    assert [console.position_of(n) for n in range(7)] == [10, 10, 15, 16, 20, 20, 20]
    assert [console.bytes_until(p) for p in (0, 9, 10, 14, 15, 16, 19, 20, 99)] == [
        *(0, 0, 2, 2, 3, 4, 4, 7, 7)
    ]


def test_what_was_written_before_the_first_instruction(tmp_path: Path) -> None:
    events = [wrote(17), wrote(12), ran(10), wrote(2), ran(1)]
    console = ConsoleMap.of(log_of(tmp_path, events), b"ab")
    assert [console.position_of(n) for n in range(2)] == [10, 10]


@pytest.mark.parametrize("index", [-1, 7])
def test_a_byte_not_on_the_console(tmp_path: Path, index: int) -> None:
    with pytest.raises(PositionError, match="not among the 7"):
        boot(tmp_path).position_of(index)


def test_find(tmp_path: Path) -> None:
    console = boot(tmp_path)
    assert list(console.find("abc")) == [(0, 10), (4, 20)]
    assert list(console.find(b"bc", 2)) == [(5, 20)]
    assert list(console.find("nothing")) == []


def test_find_sees_overlapping_text(tmp_path: Path) -> None:
    console = ConsoleMap.of(log_of(tmp_path, [ran(1), wrote(3)]), b"aaa")
    assert [index for index, _ in console.find("aa")] == [0, 1]


@pytest.mark.parametrize(("text", "start"), [("", 0), ("a", -1)])
def test_a_senseless_search_fails_when_asked(tmp_path: Path, text: str, start: int) -> None:
    with pytest.raises(UsageError):
        boot(tmp_path).find(text, start)


def test_lines(tmp_path: Path) -> None:
    assert list(boot(tmp_path).lines()) == [Line(0, b"abc", 10, 16), Line(4, b"abc", 20, 20)]


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    text = b"50%\r100%\r\n\nend\n"
    console = ConsoleMap.of(log_of(tmp_path, [ran(1), wrote(len(text))]), text)
    assert [line.text for line in console.lines()] == [b"50%\r100%", b"", b"end"]


def test_a_failed_write_counts_what_was_taken_before(tmp_path: Path) -> None:
    events = [ran(1), wrote(2, result=-1), ran(1), wrote(0, result=-1), ran(1), wrote(1)]
    console = ConsoleMap.of(log_of(tmp_path, events), b"abc")
    assert console.positions.tolist() == [1, 1, 3]


def test_another_port_wrote_too(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="another serial port"):
        ConsoleMap.of(log_of(tmp_path, [ran(1), wrote(1), wrote(1)]), b"a")


def test_absurd_counts_take_no_memory(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="counts 8_589_934_590 bytes"):
        ConsoleMap.of(log_of(tmp_path, [ran(1), wrote(2**32 - 1, 1), wrote(2**32 - 1, 1)]), b"a")


def test_output_the_log_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="not all of it came through a recorded serial port"):
        ConsoleMap.of(log_of(tmp_path, [ran(1), wrote(1)]), b"abc")


def test_a_log_cut_off_places_what_it_counts(tmp_path: Path) -> None:
    log = log_of(tmp_path, [ran(1), wrote(1), ran(1), wrote(1)], ended=False)
    console = ConsoleMap.of(log, b"abc")
    assert (console.data, console.unplaced) == (b"ab", 1)
    assert console.positions.tolist() == [1, 2]


def test_no_output_at_all(tmp_path: Path) -> None:
    console = ConsoleMap.of(log_of(tmp_path, [ran(1)]), b"")
    assert (len(console), list(console.lines()), console.bytes_until(9)) == (0, [], 0)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(0, 5).map(wrote), any_event(FIRST)), max_size=60))
def test_every_byte_is_placed_by_its_event(tmp_path: Path, events: list[Event]) -> None:
    events = [event for event in events if event.kind != Kind.CHAR_WRITE or event.written <= 5]
    data, placed = write([*events, *ENDING])
    expected = [
        event.position
        for event in placed
        if event.kind == Kind.CHAR_WRITE and event.position > 0
        for _ in range(event.written)
    ]
    log = RrLog.open(save(tmp_path / "log", data), chunk_bytes=64)
    console = ConsoleMap.of(log, b"x" * len(expected))
    assert console.positions.tolist() == expected
    for position in {0, *expected, *(p + 1 for p in expected)}:
        assert console.bytes_until(position) == sum(p <= position for p in expected)
