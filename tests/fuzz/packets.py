"""Fuzz target: the decoder of remote protocol packets, on any bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.wire.rsp import Decoder, Packet, encode
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target
from tests.fuzz.session import SEEDS as SESSIONS

LIMIT = 4096
MOST = 256

SEEDS = (*SESSIONS, *(b"".join(map(encode, one.split(b"\n"))) for one in SESSIONS))


def open_target(place: Path) -> Callable[[bytes], None]:
    return decode


def decode(data: bytes) -> None:
    """Decode bytes whole and in chunks; encode what came out and decode that."""
    size = 1 + data[0] if data else 1
    whole, parts = Decoder(LIMIT), Decoder(LIMIT)
    frames = whole.feed(data)
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    assert [frame for chunk in chunks for frame in parts.feed(chunk)] == frames
    assert whole.held == parts.held <= LIMIT + 8
    for frame in frames:
        if isinstance(frame, Packet):
            assert Decoder(2 * LIMIT).feed(encode(frame.payload)) == [frame]
