"""What the events of QEMU's rr log mean, one typed object per event.

QEMU's replay/replay-internal.h numbers the kinds; replay/replay-*.c and
replay/replay-events.c write the payloads. All numbers are big-endian. An event is
one byte, its kind, and a payload; an *array* is a u32 length and that many bytes.
What differs between versions of the log is in rrlayout.

Numbers that come from a QAPI enumeration (key codes, buttons, axes) are kept as
numbers: their meaning belongs to the QEMU that recorded them, and 10.0 knows some
that 7.2 does not.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Literal, TypeAlias

import msgspec

from .rrlayout import Layout


class Kind(IntEnum):
    """The first byte of an event. 21 is `SHUTDOWN_CAUSE__MAX`, which is never written."""

    INSTRUCTION = 0
    INTERRUPT = 1
    EXCEPTION = 2
    BH = 3
    BH_ONESHOT = 4
    INPUT = 5
    INPUT_SYNC = 6
    CHAR_READ = 7
    BLOCK = 8
    NET = 9
    SHUTDOWN_NONE = 10
    SHUTDOWN_HOST_ERROR = 11
    SHUTDOWN_HOST_QMP_QUIT = 12
    SHUTDOWN_HOST_QMP_SYSTEM_RESET = 13
    SHUTDOWN_HOST_SIGNAL = 14
    SHUTDOWN_HOST_UI = 15
    SHUTDOWN_GUEST_SHUTDOWN = 16
    SHUTDOWN_GUEST_RESET = 17
    SHUTDOWN_GUEST_PANIC = 18
    SHUTDOWN_SUBSYSTEM_RESET = 19
    SHUTDOWN_SNAPSHOT_LOAD = 20
    CHAR_WRITE = 22
    CHAR_READ_ALL = 23
    CHAR_READ_ALL_ERROR = 24
    AUDIO_OUT = 25
    AUDIO_IN = 26
    RANDOM = 27
    CLOCK_HOST = 28
    CLOCK_VIRTUAL_RT = 29
    CHECKPOINT_CLOCK_WARP_START = 30
    CHECKPOINT_CLOCK_WARP_ACCOUNT = 31
    CHECKPOINT_RESET_REQUESTED = 32
    CHECKPOINT_SUSPEND_REQUESTED = 33
    CHECKPOINT_CLOCK_VIRTUAL = 34
    CHECKPOINT_CLOCK_HOST = 35
    CHECKPOINT_CLOCK_VIRTUAL_RT = 36
    CHECKPOINT_INIT = 37
    CHECKPOINT_RESET = 38
    END = 39


SHUTDOWN_KINDS = frozenset(kind for kind in Kind if kind.name.startswith("SHUTDOWN_"))


def shutdown_cause(kind: Kind) -> str:
    """QAPI's name of the `ShutdownCause` that a SHUTDOWN kind stands for: `guest-shutdown`."""
    return kind.name.removeprefix("SHUTDOWN_").lower().replace("_", "-")


class Event(msgspec.Struct, frozen=True):
    """One event; this class itself for kinds without payload.

    `position` counts the instructions retired before the event, `offset` is the
    byte in the log at which the event starts.
    """

    kind: Kind
    position: int
    offset: int


class Instruction(Event, frozen=True):
    """`count` instructions ran, from `position` to `position + count`."""

    count: int


class BottomHalf(Event, frozen=True):
    """BH, BH_ONESHOT: a bottom half ran that was scheduled at position `scheduled`."""

    scheduled: int


class Block(Event, frozen=True):
    """BLOCK: the blkreplay request number `request` completed."""

    request: int


KeyCodes: TypeAlias = Literal["scan", "qcode", "linux"]


class Key(msgspec.Struct, frozen=True):
    """A key went down or up; `codes` says what its `code` is one of.

    `scan` codes are those of a PC keyboard, `qcode` is QAPI's QKeyCode and `linux` the
    kernel's input-event-codes.h.
    """

    code: int
    codes: KeyCodes
    down: bool


class Button(msgspec.Struct, frozen=True):
    """A mouse button (`InputButton`) went down or up."""

    button: int
    down: bool


class Move(msgspec.Struct, frozen=True):
    """A pointer moved on `axis` by (or, if `absolute`, to) `value`."""

    axis: int
    value: int
    absolute: bool


class Touch(msgspec.Struct, frozen=True):
    """A multi-touch contact changed; `type` is an `InputMultiTouchType`."""

    type: int
    slot: int
    tracking_id: int
    axis: int
    value: int


InputAction: TypeAlias = Key | Button | Move | Touch


class Input(Event, frozen=True):
    """INPUT: keyboard, mouse, tablet or touch screen."""

    action: InputAction


class CharRead(Event, frozen=True):
    """CHAR_READ: the host sent `data` to the serial port number `port` (order of creation)."""

    port: int
    data: bytes


class Net(Event, frozen=True):
    """NET: filter-replay number `filter` passed `packet` on, with the queue's `flags`."""

    filter: int
    flags: int
    packet: bytes


class Shutdown(Event, frozen=True):
    """SHUTDOWN_*: the machine was asked to stop; `cause` in QAPI's words."""

    cause: str


class CharWrite(Event, frozen=True):
    """CHAR_WRITE: the guest wrote `written` bytes to some serial port.

    `result` is what the back end's last write returned: an error when negative.
    """

    result: int
    written: int


class CharReadAll(Event, frozen=True):
    """CHAR_READ_ALL: a synchronous read of a character device gave `data`."""

    data: bytes


class CharReadAllError(Event, frozen=True):
    """CHAR_READ_ALL_ERROR: a synchronous read of a character device failed with `error`."""

    error: int


class AudioOut(Event, frozen=True):
    """AUDIO_OUT: the host played `played` frames."""

    played: int


class AudioIn(Event, frozen=True):
    """AUDIO_IN: frames recorded by the host, oldest first, as (left, right).

    `wpos` is the index in QEMU's ring buffer after the last of them, None where the log
    does not say it.
    """

    wpos: int | None
    samples: tuple[tuple[int, int], ...]


class Random(Event, frozen=True):
    """RANDOM: the host's random generator returned `result` and `data`."""

    result: int
    data: bytes


class Clock(Event, frozen=True):
    """CLOCK_HOST, CLOCK_VIRTUAL_RT: a host clock was read, in nanoseconds."""

    nanoseconds: int


# By the u32 before the code, where there is one.
_TAGGED_CODES: tuple[KeyCodes, ...] = ("scan", "qcode")
_BUTTON = struct.Struct(">IB")
_MOVE = struct.Struct(">Iq")
_TOUCH = struct.Struct(">IqqIq")
_INPUT_KEY, _INPUT_BUTTON, _INPUT_REL, _INPUT_ABS, _INPUT_TOUCH = range(5)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _i32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big", signed=True)


def _i64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "big", signed=True)


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "big")


def _input_action(raw: bytes, layout: Layout) -> InputAction:
    kind = _u32(raw, 1)
    body = raw[5:]
    if kind == _INPUT_KEY:
        return _key(body, layout)
    if kind == _INPUT_BUTTON:
        button, down = _BUTTON.unpack(body)
        return Button(button, bool(down))
    if kind == _INPUT_TOUCH:
        return Touch(*_TOUCH.unpack(body))
    axis, value = _MOVE.unpack(body)
    return Move(axis, value, kind == _INPUT_ABS)


def _key(body: bytes, layout: Layout) -> Key:
    code, down = body[:-1], bool(body[-1])
    if not layout.tagged_keys:
        return Key(int.from_bytes(code, "big"), "linux", down)
    return Key(int.from_bytes(code[4:], "big"), _TAGGED_CODES[_u32(code, 0)], down)


def _audio_in(raw: bytes, head: tuple[Kind, int, int], layout: Layout) -> AudioIn:
    wpos, first = (_u64(raw, 9), 17) if layout.ring_index else (None, 9)
    return AudioIn(*head, wpos, tuple(struct.iter_unpack(">qq", raw[first:])))


def decode(raw: bytes, position: int, offset: int, layout: Layout) -> Event:
    """Return the event whose bytes, kind byte first, are exactly `raw`.

    `raw` must be one whole event as the scanner delimits it in logs of this layout.
    """
    kind = Kind(raw[0])
    head = (kind, position, offset)
    match kind:
        case Kind.INSTRUCTION:
            return Instruction(*head, _u32(raw, 1))
        case Kind.BH | Kind.BH_ONESHOT:
            return BottomHalf(*head, _u64(raw, 1))
        case Kind.INPUT:
            return Input(*head, _input_action(raw, layout))
        case Kind.CHAR_READ:
            return CharRead(*head, raw[1], raw[6:])
        case Kind.BLOCK:
            return Block(*head, _u64(raw, 1))
        case Kind.NET:
            return Net(*head, raw[1], _u32(raw, 2), raw[10:])
        case Kind.CHAR_WRITE:
            return CharWrite(*head, _i32(raw, 1), _u32(raw, 5))
        case Kind.CHAR_READ_ALL:
            return CharReadAll(*head, raw[5:])
        case Kind.CHAR_READ_ALL_ERROR:
            return CharReadAllError(*head, _i32(raw, 1))
        case Kind.AUDIO_OUT:
            return AudioOut(*head, _u64(raw, 1))
        case Kind.AUDIO_IN:
            return _audio_in(raw, head, layout)
        case Kind.RANDOM:
            return Random(*head, _i32(raw, 1), raw[9:])
        case Kind.CLOCK_HOST | Kind.CLOCK_VIRTUAL_RT:
            return Clock(*head, _i64(raw, 1))
        case _ if kind in SHUTDOWN_KINDS:
            return Shutdown(*head, shutdown_cause(kind))
        case _:
            return Event(*head)
