"""What several ports wrote, in one order."""

from __future__ import annotations

import pytest

from retrograde.errors import RecordingError
from retrograde.recording.ports import encode_runs, read_runs

RUNS = [(0, b"a"), (0, b"b"), (1, b"x"), (0, b"c")]


def test_what_is_written_is_read() -> None:
    content = encode_runs(RUNS[:2]) + encode_runs(RUNS[2:])
    found = read_runs(content, 2, whole=True)
    assert found.data == b"abxc"
    assert (found.of(0), found.of(1)) == (b"abc", b"x")
    assert len(content) == 4 + 3 * 5  # "a" and "b" are one run


def test_nothing() -> None:
    assert encode_runs([]) == b""
    assert read_runs(b"", 2, whole=True).data == b""


@pytest.mark.parametrize("cut", [1, 4, 5, 6])
def test_cut_off(cut: int) -> None:
    content = encode_runs(RUNS)[:cut]
    with pytest.raises(RecordingError, match=r"ports\.log"):
        read_runs(content, 2, whole=True)
    assert read_runs(content, 2, whole=False).data == b"ab"[: max(0, cut - 5)]


def test_a_port_that_the_machine_has_not() -> None:
    with pytest.raises(RecordingError, match=r"ports\.log"):
        read_runs(encode_runs([(2, b"x")]), 2, whole=False)


def test_a_run_of_nothing() -> None:
    with pytest.raises(RecordingError, match=r"ports\.log"):
        read_runs(bytes(5) + encode_runs(RUNS), 2, whole=True)


def test_a_length_of_nearly_everything() -> None:
    assert read_runs(b"\0\xff\xff\xff\xffab", 1, whole=False).data == b"ab"
