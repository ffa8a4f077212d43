"""Fuzz target: position expressions, as they come from a command line or from gdb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.errors import PositionError
from retrograde.position import format_position, parse_position
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target
from tests.recording.handmade import make_recording

ENDS = (0, 1000, 1_234_567_890, (1 << 63) - 1)

MOST = 256

SEEDS = tuple(
    bytes([number % len(ENDS)]) + text.encode("utf-8", "surrogateescape")
    for number, text in enumerate(
        (
            *("0", "start", "end", "end-1", " end - 1_000 ", "50%", "33.333333333333333333333%"),
            *(
                "1_234_567",
                "1.2G",
                "0.5k",
                "1.0000000001k",
                "end-1.5M",
                "1" * 200,
                "1" * 9999,
                "1." + "0" * 200,
            ),
            *('console:"hello"', "console:'lo'", "console:", 'console:""', "console:\udcff", "٣٤"),
            *("9_223_372_036_854_775_807", "-1", "1__2", "1_", "1e9", "NaN", "1%%", "end-end"),
        )
    )
)
"""The first byte chooses one of ENDS."""


def open_target(place: Path) -> Callable[[bytes], None]:
    recording = make_recording(place / "a.retro")

    def one_input(data: bytes) -> None:
        end = ENDS[data[0] % len(ENDS)] if data else 0
        # As Python hands on a command line.
        text = data[1:].decode("utf-8", "surrogateescape")
        _check(lambda: parse_position(text, end, {"hello": 5}.get), end)
        _check(lambda: recording.resolve(text), recording.end)

    return one_input


def _check(resolve: Callable[[], int], end: int) -> None:
    try:
        position = resolve()
    except PositionError as error:
        assert len(str(error)) < 1000
        return
    assert type(position) is int
    assert 0 <= position <= end
    assert parse_position(format_position(position), end, {}.get) == position
