"""Fuzz target: which processor ran when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.errors import RecordingError
from retrograde.recording.schedule import Schedule, encode_schedule, read_schedule
from tests.fuzz.mutation import change_bytes as mutate  # noqa: F401 - part of a target

VCPUS = 3

MOST = 512

SEEDS = (
    b"",
    encode_schedule(VCPUS, []),
    encode_schedule(VCPUS, [(8, 1), (30, 2), (5000, 0), (5001, 1), (9_000_000, 2)]),
    encode_schedule(VCPUS, [(1 << 40, 1), ((1 << 40) + 1, 2)])[:-1],
    encode_schedule(2, [(8, 1)]),
    encode_schedule(VCPUS, [(8, 1)]) + b"\xff" * 20 + b"\x01",
    encode_schedule(VCPUS, [(8, 1)]) + b"\x80",
    encode_schedule(VCPUS, [(8, 1)]) + b"\x02",
)


def open_target(place: Path) -> Callable[[bytes], None]:
    def one_input(data: bytes) -> None:
        found = _read(data, whole=False)
        whole = _read(data, whole=True)
        if found is None:
            assert whole is None
            return
        offsets, vcpus = found.offset.tolist(), found.vcpu.tolist()
        assert len(offsets) == len(vcpus)
        assert all(vcpu < VCPUS for vcpu in vcpus)
        assert offsets == sorted(set(offsets))
        assert len(found.table()) == 16 * len(offsets)
        again = _read(encode_schedule(VCPUS, zip(offsets, vcpus, strict=True)), whole=True)
        assert again is not None
        assert again.table() == found.table()

    return one_input


def _read(data: bytes, *, whole: bool) -> Schedule | None:
    try:
        return read_schedule(data, VCPUS, whole=whole)
    except RecordingError:
        return None
