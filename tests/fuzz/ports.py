"""Fuzz target: what several ports wrote, in runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.errors import RecordingError
from retrograde.recording.ports import PortBytes, encode_runs, read_runs
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target

PORTS = 3

MOST = 512

SEEDS = (
    b"",
    encode_runs([(0, b"hello\n")]),
    encode_runs([(0, b"a"), (1, b"PEI"), (0, b"b"), (2, b"x" * 300)]),
    encode_runs([(1, b"cut off")])[:-3],
    encode_runs([(1, b"cut off")])[:3],
    encode_runs([(PORTS, b"no such port")]),
    bytes(5) + b"\0\xff\xff\xff\xffnot so many",
)


def open_target(place: Path) -> Callable[[bytes], None]:
    def one_input(data: bytes) -> None:
        found = _read(data, whole=False)
        whole = _read(data, whole=True)
        if found is None:
            assert whole is None
            return
        assert len(found.data) == len(found.port)
        assert sum(len(found.of(number)) for number in range(PORTS)) == len(found.data)
        if whole is not None:
            assert whole.data == found.data
            pairs = zip(found.port.tolist(), found.data, strict=True)
            again = _read(encode_runs((port, bytes([byte])) for port, byte in pairs), whole=True)
            assert again is not None
            assert again.data == found.data
            assert again.port.tolist() == found.port.tolist()

    return one_input


def _read(data: bytes, *, whole: bool) -> PortBytes | None:
    try:
        return read_runs(data, PORTS, whole=whole)
    except RecordingError:
        return None
