"""Stop replies, as the GDB manual defines them and as QEMU 10 sends them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.wire.rsp import MalformedPacket
from retrograde.wire.rsp_stop import StopReason, StopReply, is_stop, parse_stop


@pytest.mark.parametrize(
    ("payload", "stop"),
    [
        (b"T05thread:01;", StopReply(5, thread="01")),
        (b"S02", StopReply(2)),
        (b"W00", StopReply(0, kind="exited")),
        (b"X09;process:1", StopReply(9, kind="killed")),
        (
            b"T05thread:01;watch:ffff8ecc82a30100;",
            StopReply(5, reason=StopReason.WATCH, address=0xFFFF8ECC82A30100, thread="01"),
        ),
        (b"T05rwatch:10;", StopReply(5, reason=StopReason.READ_WATCH, address=0x10)),
        (b"T05awatch:10;", StopReply(5, reason=StopReason.ACCESS_WATCH, address=0x10)),
        (b"T05swbreak:;", StopReply(5, reason=StopReason.SOFTWARE_BREAK)),
        (b"T05hwbreak:;", StopReply(5, reason=StopReason.HARDWARE_BREAK)),
        (b"T05replaylog:begin;", StopReply(5, reason=StopReason.REPLAY_LOG, log_end="begin")),
        (b"T0506:00ff;library:;", StopReply(5)),
    ],
)
def test_known_replies(payload: bytes, stop: StopReply) -> None:
    assert is_stop(payload)
    assert parse_stop(payload) == stop


@pytest.mark.parametrize(
    "payload",
    [b"", b"OK", b"T", b"T0", b"Tzz", b"T05watch:;", b"T05watch:-1;", b"T05replaylog:x;", b"E14"],
)
def test_malformed_replies(payload: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse_stop(payload)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda rest: b"T05" + rest))
def test_arbitrary_bytes_raise_only_malformed(payload: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        parse_stop(payload)


def test_only_a_bare_trap_is_a_plain_step() -> None:
    assert parse_stop(b"T05thread:01;").is_plain_trap
    assert not parse_stop(b"T05thread:01;watch:0;").is_plain_trap
    assert not parse_stop(b"T03thread:01;").is_plain_trap
    assert not parse_stop(b"W05").is_plain_trap
