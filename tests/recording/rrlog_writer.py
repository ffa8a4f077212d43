"""A writer of rr logs for tests: events to bytes, and random events.

Written from the format's description, sharing no code with the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from retrograde.recording import rrevents as rr
from retrograde.recording.rrevents import Event, Kind

FIRST, SECOND, THIRD = VERSIONS = (0x00E0200C, 0x00E0200D, 0x00E0200E)
FINALIZED = bytes.fromhex("00e0200c") + bytes(8)
KILLED = bytes(12)
ENDING = (rr.Shutdown(Kind.SHUTDOWN_HOST_SIGNAL, 0, 0, "host-signal"), Event(Kind.END, 0, 0))

U8, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
I32 = st.integers(-(2**31), 2**31 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
# Mostly short, and now and then longer than the chunks of the tests.
ARRAY = st.one_of(st.binary(max_size=40), st.binary(min_size=200, max_size=900))

PLAIN = [
    kind
    for kind in Kind
    if kind in (Kind.INTERRUPT, Kind.EXCEPTION, Kind.INPUT_SYNC) or "CHECKPOINT" in kind.name
]
CAUSES = [
    "none",
    "host-error",
    "host-qmp-quit",
    "host-qmp-system-reset",
    "host-signal",
    "host-ui",
    "guest-shutdown",
    "guest-reset",
    "guest-panic",
    "subsystem-reset",
    "snapshot-load",
]
SHUTDOWNS = {Kind(10 + number): cause for number, cause in enumerate(CAUSES)}


def make(cls: type[Event], kinds: Kind | Iterable[Kind], *fields: object) -> st.SearchStrategy:
    one = [kinds] if isinstance(kinds, Kind) else list(kinds)
    return st.builds(cls, st.sampled_from(one), st.just(0), st.just(0), *fields)


def actions(version: int) -> st.SearchStrategy[rr.InputAction]:
    keys = (
        st.builds(rr.Key, U32, st.just("qcode"), st.booleans()),
        st.builds(rr.Key, U64, st.just("scan"), st.booleans()),
    )
    return st.one_of(
        *(keys if version < THIRD else [st.builds(rr.Key, U32, st.just("linux"), st.booleans())]),
        st.builds(rr.Button, U32, st.booleans()),
        st.builds(rr.Move, U32, I64, st.booleans()),
        st.builds(rr.Touch, U32, I64, I64, U32, I64),
    )


def any_event(version: int) -> st.SearchStrategy[Event]:
    return st.one_of(
        make(rr.Instruction, Kind.INSTRUCTION, st.integers(1, 2**31 - 1)),
        make(Event, PLAIN),
        make(rr.BottomHalf, (Kind.BH, Kind.BH_ONESHOT), U64),
        make(rr.Input, Kind.INPUT, actions(version)),
        make(rr.CharRead, Kind.CHAR_READ, U8, ARRAY),
        make(rr.Block, Kind.BLOCK, U64),
        make(rr.Net, Kind.NET, U8, U32, ARRAY),
        st.sampled_from([rr.Shutdown(kind, 0, 0, cause) for kind, cause in SHUTDOWNS.items()]),
        make(rr.CharWrite, Kind.CHAR_WRITE, I32, U32),
        make(rr.CharReadAll, Kind.CHAR_READ_ALL, ARRAY),
        make(rr.CharReadAllError, Kind.CHAR_READ_ALL_ERROR, I32),
        make(rr.AudioOut, Kind.AUDIO_OUT, U64),
        make(
            rr.AudioIn,
            Kind.AUDIO_IN,
            U64 if version == FIRST else st.none(),
            st.lists(st.tuples(I64, I64), max_size=30).map(tuple),
        ),
        make(rr.Random, Kind.RANDOM, I32, ARRAY),
        make(rr.Clock, (Kind.CLOCK_HOST, Kind.CLOCK_VIRTUAL_RT), I64),
    )


def header(version: int) -> bytes:
    """The header of a finished log."""
    return struct.pack(">IQ", version, 0)


def encode(event: Event) -> bytes:
    """The bytes of one event, kind byte first."""
    return bytes([event.kind]) + _payload(event)


def write(events: Iterable[Event], begin: bytes = FINALIZED) -> tuple[bytes, list[Event]]:
    """A log of `events`, and the same events with their positions and offsets."""
    data = bytearray(begin)
    position = 0
    placed = []
    for event in events:
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        placed.append(type(event)(**fields | {"position": position, "offset": len(data)}))
        data += encode(event)
        if isinstance(event, rr.Instruction):
            position += event.count
    return bytes(data), placed


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _array(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _payload(event: Event) -> bytes:
    match event:
        case rr.Instruction(count=count):
            return struct.pack(">I", count)
        case rr.BottomHalf(scheduled=number) | rr.Block(request=number):
            return struct.pack(">Q", number)
        case rr.AudioOut(played=number):
            return struct.pack(">Q", number)
        case rr.Input(action=action):
            return _action(action)
        case rr.CharRead(port=port, data=data):
            return bytes([port]) + _array(data)
        case rr.Net(filter=number, flags=flags, packet=packet):
            return struct.pack(">BI", number, flags) + _array(packet)
        case rr.CharWrite(result=result, written=written):
            return struct.pack(">iI", result, written)
        case rr.CharReadAll(data=data):
            return _array(data)
        case rr.CharReadAllError(error=error):
            return struct.pack(">i", error)
        case rr.AudioIn(wpos=wpos, samples=samples):
            head = struct.pack(">Q", len(samples))
            head += b"" if wpos is None else struct.pack(">Q", wpos)
            return head + b"".join(struct.pack(">qq", *sample) for sample in samples)
        case rr.Random(result=result, data=data):
            return struct.pack(">i", result) + _array(data)
        case rr.Clock(nanoseconds=nanoseconds):
            return struct.pack(">q", nanoseconds)
    return b""


def _action(action: rr.InputAction) -> bytes:
    match action:
        case rr.Key(codes="scan", code=code, down=down):
            return struct.pack(">IIQB", 0, 0, code, down)
        case rr.Key(codes="qcode", code=code, down=down):
            return struct.pack(">IIIB", 0, 1, code, down)
        case rr.Key(code=code, down=down):
            return struct.pack(">IIB", 0, code, down)
        case rr.Button(button=button, down=down):
            return struct.pack(">IIB", 1, button, down)
        case rr.Move(axis=axis, value=value, absolute=absolute):
            return struct.pack(">IIq", 3 if absolute else 2, axis, value)
    return struct.pack(
        ">IIqqIq", 4, action.type, action.slot, action.tracking_id, action.axis, action.value
    )
