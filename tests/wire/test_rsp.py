"""Framing: whatever goes in comes out, whatever comes in is survived."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.wire.rsp import (
    Ack,
    Decoder,
    Garbled,
    Interrupt,
    Nack,
    Notification,
    Packet,
    encode,
    encode_notification,
)

payloads = st.binary(max_size=300)
tricky = st.lists(st.sampled_from([b"$", b"#", b"}", b"*", b"%", b"+", b"\x03", b"a"])).map(
    b"".join
)


def framed(body: bytes) -> bytes:
    return b"$%s#%02x" % (body, sum(body) & 0xFF)


def with_runs(payload: bytes) -> bytes:
    """Encode a payload of plain bytes with the longest runs a stub may send."""
    body = bytearray()
    for byte, group in itertools.groupby(payload):
        left = len(list(group))
        while left:
            # A run is the byte and 3 to 97 more; counts that read as '#' or '$' are barred.
            more = min(left - 1, 97)
            while more + 29 in b"#$+-":
                more -= 1
            if more >= 3:
                body += bytes((byte, ord("*"), more + 29))
                left -= more + 1
            else:
                body.append(byte)
                left -= 1
    return framed(bytes(body))


@given(st.lists(st.tuples(st.booleans(), payloads | tricky)), st.data())
def test_what_is_encoded_is_decoded_in_any_chunks(
    items: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode(p) if packet else encode_notification(p) for packet, p in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    frames = []
    for start, end in itertools.pairwise([0, *cuts, len(stream)]):
        frames += decoder.feed(stream[start:end])
    assert frames == [Packet(p) if packet else Notification(p) for packet, p in items]
    assert decoder.held == 0


@given(st.text(alphabet="0af;", max_size=600).map(str.encode))
def test_runs_are_expanded(payload: bytes) -> None:
    encoded = with_runs(payload)
    assert Decoder().feed(encoded) == [Packet(payload)]


@given(st.lists(st.binary(max_size=200) | tricky, max_size=30))
def test_arbitrary_bytes_neither_raise_nor_pile_up(chunks: list[bytes]) -> None:
    limit = 64
    decoder = Decoder(limit)
    for chunk in chunks:
        for frame in decoder.feed(chunk):
            if isinstance(frame, Packet | Notification):
                assert len(frame.payload) <= limit
        assert decoder.held <= limit + 2


@given(st.binary(max_size=100).filter(lambda noise: not set(noise) & set(b"$%#")), payloads)
def test_a_packet_after_noise_is_found(noise: bytes, payload: bytes) -> None:
    assert Decoder().feed(noise + encode(payload))[-1] == Packet(payload)


@given(payloads)
def test_a_cut_packet_does_not_swallow_the_next(payload: bytes) -> None:
    assert Decoder().feed(b"$g12" + encode(payload)) == [Packet(payload)]


def test_single_bytes_are_frames() -> None:
    assert Decoder().feed(b"+-\x03") == [Ack(), Nack(), Interrupt()]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"$g#68", "checksum"),
        (b"$g#zz", "checksum"),
        (b"$g#-1", "checksum"),
        (framed(b"a}"), "within"),
        (framed(b"a*"), "within"),
        (framed(b"*0"), "run of nothing"),
        (framed(b"a*\x01"), "no valid count"),
    ],
)
def test_what_breaks_the_rules_is_garbled(stream: bytes, reason: str) -> None:
    decoder = Decoder()
    (frame,) = decoder.feed(stream)
    assert isinstance(frame, Garbled)
    assert reason in frame.reason
    assert decoder.feed(encode(b"OK")) == [Packet(b"OK")]


def test_an_oversized_packet_is_dropped_whole_and_once() -> None:
    decoder = Decoder(limit=10)
    frames = [
        frame for byte in b"$" + b"a" * 100 + b"#00" for frame in decoder.feed(bytes((byte,)))
    ]
    assert [type(frame) for frame in frames] == [Garbled]
    assert decoder.feed(encode(b"OK")) == [Packet(b"OK")]


def test_a_run_must_not_expand_beyond_the_limit() -> None:
    (frame,) = Decoder(limit=100).feed(framed(b"a*~*~*~"))
    assert isinstance(frame, Garbled)


def test_the_manuals_example_of_a_run() -> None:
    assert Decoder().feed(framed(b"0* ")) == [Packet(b"0000")]
