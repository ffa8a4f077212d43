"""Framing of the GDB remote serial protocol: bytes in, frames out, and back.

Pure: no I/O, and no knowledge of who is at the other end. Format: GDB manual, appendix
"GDB Remote Serial Protocol", sections "Overview" and "Notification Packets".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

ACK: Final = b"+"
NACK: Final = b"-"
INTERRUPT: Final = b"\x03"

DEFAULT_LIMIT: Final = 1 << 20
"""Bytes of payload, before and after run-length expansion, a decoder accepts."""

_FRAME_START: Final = re.compile(rb"[-+$%\x03]")
_ESCAPE_OR_RUN: Final = re.compile(rb"[}*]")
_RUN_BIAS: Final = 29
_LARGE: Final = 512
"""Bytes from which on numpy adds them up faster than Python: 3 us instead of 900 for 128 KB."""


class MalformedPacket(ValueError):
    """A payload that breaks the protocol. Not for users: whoever holds the link translates."""


@dataclass(frozen=True, slots=True)
class Packet:
    """``$...#cc``, unescaped and expanded."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Notification:
    """``%...#cc``: comes at any time and is never acknowledged."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """The other end received our last packet whole."""


@dataclass(frozen=True, slots=True)
class Nack:
    """The other end wants our last packet again."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A client asks a running target to stop."""


@dataclass(frozen=True, slots=True)
class Garbled:
    """A packet that could not be read; in acknowledged mode the answer is a nack."""

    reason: str


Frame = Packet | Notification | Ack | Nack | Interrupt | Garbled

_SINGLE: Final[dict[int, Frame]] = {ACK[0]: Ack(), NACK[0]: Nack(), INTERRUPT[0]: Interrupt()}


def encode(payload: bytes) -> bytes:
    """Return the packet that carries `payload`, escaping what must not appear in one."""
    return b"$" + _guarded(payload)


def encode_notification(payload: bytes) -> bytes:
    """Return the notification that carries `payload`."""
    return b"%" + _guarded(payload)


class Decoder:
    """Takes the bytes of one direction as they come and returns whole frames.

    Never raises: what cannot be read becomes `Garbled`, bytes between frames are
    skipped, and never more than `limit` plus a few bytes are held.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._skipping = False

    @property
    def held(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes."""
        held = self._held
        held += data
        frames: list[Frame] = []
        at = 0
        while at < len(held):
            if self._skipping:
                at = self._skip(at)
                continue
            match = _FRAME_START.search(held, at)
            if match is None:
                at = len(held)
                break
            at = match.start()
            single = _SINGLE.get(held[at])
            if single is not None:
                frames.append(single)
                at += 1
                continue
            end = held.find(b"#", at)
            if end < 0 or end - at > self._limit:
                if len(held) - at <= self._limit:
                    break
                frames.append(Garbled("longer than the limit"))
                self._skipping = True
                continue
            if len(held) < end + 3:
                break
            frames.append(self._read(at, end))
            at = end + 3
        del held[:at]
        return frames

    def _skip(self, at: int) -> int:
        """Drop the rest of an oversized frame, up to and with its end mark."""
        end = self._held.find(b"#", at)
        self._skipping = end < 0
        return len(self._held) if end < 0 else end + 1

    def _read(self, start: int, end: int) -> Frame:
        # An unescaped '$' cannot be part of a packet: the packet before it was cut off.
        restart = self._held.rfind(b"$", start, end)
        start = max(start, restart)
        body = bytes(self._held[start + 1 : end])
        digits = bytes(self._held[end + 1 : end + 3])
        try:
            expected = int(digits, 16) if digits.isalnum() else -1
        except ValueError:
            expected = -1
        if expected != _checksum(body):
            return Garbled("wrong checksum")
        try:
            payload = _expand(body, self._limit)
        except MalformedPacket as error:
            return Garbled(str(error))
        return Packet(payload) if self._held[start] == ord("$") else Notification(payload)


def _guarded(payload: bytes) -> bytes:
    # The escape character first: the others bring more of it.
    body = payload.replace(b"}", b"}]").replace(b"#", b"}\x03")
    body = body.replace(b"$", b"}\x04").replace(b"*", b"}\n")
    return b"%s#%02x" % (body, _checksum(body))


def _checksum(body: bytes) -> int:
    if len(body) < _LARGE:
        return sum(body) & 0xFF
    return int(np.frombuffer(body, np.uint8).sum(dtype=np.uint8))


def _expand(body: bytes, limit: int) -> bytes:
    """Undo escapes (``}`` and the byte with bit 5 flipped) and runs (``*`` and a count)."""
    if _ESCAPE_OR_RUN.search(body) is None:
        return body
    result = bytearray()
    at = 0
    while (match := _ESCAPE_OR_RUN.search(body, at)) is not None:
        result += body[at : match.start()]
        at = match.end() + 1
        if at > len(body):
            raise MalformedPacket("ends within an escape or a run")
        byte = body[at - 1]
        if match[0] == b"}":
            result.append(byte ^ 0x20)
            continue
        if not result or not 32 <= byte <= 126:
            raise MalformedPacket("has a run of nothing or with no valid count")
        result += result[-1:] * (byte - _RUN_BIAS)
        if len(result) > limit:
            raise MalformedPacket("expands beyond the limit")
    return bytes(result + body[at:])
