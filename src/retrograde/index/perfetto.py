"""Perfetto's trace format, as much of it as slices and instants on named tracks need.

A trace is a protobuf message `Trace` of packets (protos/perfetto/trace in Perfetto's
sources: trace_packet.proto, track_event/track_event.proto, track_event/track_descriptor
.proto, interned_data/interned_data.proto); the numbers of fields here are from there.
Only bytes are made; nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SEQUENCE: Final = 1
"""The one writer there is (trusted_packet_sequence_id)."""

_CLEARED, _NEEDED = 1, 2  # TracePacket.SequenceFlags, of interned names
_BEGIN, _END, _INSTANT = 1, 2, 3  # TrackEvent.Type


def process(uuid: int, number: int, name: str) -> bytes:
    """Return a packet that names a group of tracks, shown as a process."""
    described = _number(1, number) + _text(6, name)
    return _packet(_bytes(60, _number(1, uuid) + _bytes(3, described)))


def track(uuid: int, parent: int, name: str) -> bytes:
    """Return a packet that names a track in a group."""
    return _packet(_bytes(60, _number(1, uuid) + _text(2, name) + _number(5, parent)))


def names(known: Iterable[tuple[int, str]]) -> bytes:
    """Return the packet that gives numbers, from 1, to the names of events."""
    entries = b"".join(_bytes(2, _number(1, number) + _text(2, name)) for number, name in known)
    return _packet(_number(13, _CLEARED) + _bytes(12, entries))


def begin(time: int, track: int, name: int) -> bytes:
    """Return the begin of a slice; `name` is a number given by `names`."""
    return _event(time, _number(9, _BEGIN) + _number(11, track) + _number(10, name))


def end(time: int, track: int) -> bytes:
    """Return the end of the slice begun last on a track."""
    return _event(time, _number(9, _END) + _number(11, track))


def instant(time: int, track: int, name: int) -> bytes:
    """Return something that takes no time."""
    return _event(time, _number(9, _INSTANT) + _number(11, track) + _number(10, name))


def _event(time: int, fields: bytes) -> bytes:
    return _packet(_number(8, time) + _number(13, _NEEDED) + _bytes(11, fields))


def _packet(fields: bytes) -> bytes:
    """Return field `packet` of a Trace."""
    return _bytes(1, fields + _number(10, SEQUENCE))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode(errors="replace"))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
