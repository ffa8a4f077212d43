"""Find the events in a piece of an rr log, with numpy instead of a loop.

Where an event starts is known only from the length of the one before it, a chain
that Python would follow at a few MB/s. Instead: work out for *every* byte how long
the event would be if one started there, which gives a table "next start"; square
that table a few times so that one look-up passes 2^k events; follow the chain in
those strides; fill in the events between by the smaller strides.

Pure: bytes in, arrays out. Anything the scan cannot pass, be it cut off or
impossible, it stops before; `measure` then says which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .rrevents import Kind
from .rrlayout import Layout

Bytes: TypeAlias = NDArray[np.uint8]
Indices: TypeAlias = NDArray[np.intp]
Positions: TypeAlias = NDArray[np.uint64]

#: The longest payload array taken for real. Serial reads are at most 4 KiB, packets
#: at most 68 KiB, audio and random buffers a few pages to 1 MiB; a longer one is damage.
MAX_ARRAY_BYTES: Final = 16 << 20
#: One INSTRUCTION event counts into a positive C int (replay_advance_current_icount).
MAX_INSTRUCTIONS: Final = 2**31 - 1
#: A piece to scan, unless it is all there is, must hold the longest event without array.
MIN_CHUNK_BYTES: Final = 64

_EMPTY_KINDS = (
    {Kind.INTERRUPT, Kind.EXCEPTION, Kind.INPUT_SYNC, Kind.END}
    | {kind for kind in Kind if kind.name.startswith(("SHUTDOWN_", "CHECKPOINT_"))}
)  # fmt: skip
_FIXED = (
    dict.fromkeys(_EMPTY_KINDS, 1)
    | dict.fromkeys((Kind.INSTRUCTION, Kind.CHAR_READ_ALL_ERROR), 5)
    | dict.fromkeys((Kind.BH, Kind.BH_ONESHOT, Kind.BLOCK, Kind.CHAR_WRITE, Kind.AUDIO_OUT), 9)
    | dict.fromkeys((Kind.CLOCK_HOST, Kind.CLOCK_VIRTUAL_RT), 9)
)
# Kinds that end in one array: where, counted from the kind byte, its u32 length is.
_ARRAY_AT = {Kind.CHAR_READ: 2, Kind.NET: 6, Kind.CHAR_READ_ALL: 1, Kind.RANDOM: 5}
_AUDIO_FRAME = 16
# INPUT by its type: key, btn, rel, abs, mtt. Tagged keys by their tag.
_INPUT_LENGTH = (10, 10, 17, 17, 37)
_TAGGED_KEY_LENGTH = (18, 14)

_VARIABLE = 255
_IMPOSSIBLE = 0
_LENGTH_OF_KIND = bytes(
    _FIXED.get(Kind(byte), _VARIABLE) if byte in set(Kind) else _IMPOSSIBLE for byte in range(256)
)
# Zeros after the piece, so that fields of an event cut off by its end can be looked at.
_PADDING = bytes(16)
# 2^4 events a stride: more squarings cost more than the shorter loop saves (bench/rrlog.py).
_LEVELS = 4


class ImpossibleEvent(Exception):
    """Bytes that no QEMU writes; the text says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Whole events found in a piece of log; `starts` and `end` count from its first byte.

    `end`, the byte after the last event, lies beyond the piece if that event does.
    """

    data: bytes
    starts: Indices
    kinds: Bytes
    instructions: Positions
    end: int

    @property
    def ended(self) -> bool:
        """Whether the last event is END."""
        return bool(self.kinds.size) and int(self.kinds[-1]) == Kind.END

    def words(self, events: Indices, at: int) -> NDArray[np.uint32]:
        """Return the u32 that stands `at` bytes after the kind byte of each of `events`."""
        return _words(self.data)[self.starts[events] + at].astype(np.uint32)


def _audio_head(layout: Layout) -> int:
    """Return how many bytes of an AUDIO_IN come before its frames."""
    return 17 if layout.ring_index else 9


def measure(head: bytes, layout: Layout) -> int | None:
    """Return the length in bytes of the event that `head` starts with.

    None if `head` is too short to tell; `ImpossibleEvent` if no QEMU writes such an event.
    """
    length = _LENGTH_OF_KIND[head[0]]
    if length == _IMPOSSIBLE:
        raise ImpossibleEvent(f"there is no event kind {head[0]}")
    if length == _VARIABLE:
        return _measure_variable(Kind(head[0]), head, layout)
    if head[0] == Kind.INSTRUCTION and len(head) >= length:
        count = _word(head, 1)
        if not 1 <= count <= MAX_INSTRUCTIONS:
            raise ImpossibleEvent(f"an INSTRUCTION event cannot count {count:_} instructions")
    return length


def _measure_variable(kind: Kind, head: bytes, layout: Layout) -> int | None:
    if kind == Kind.INPUT:
        return _measure_input(head, layout)
    audio = kind == Kind.AUDIO_IN
    before = _audio_head(layout) if audio else _ARRAY_AT[kind] + 4
    if len(head) < before:
        return None
    size = int.from_bytes(head[1:9], "big") * _AUDIO_FRAME if audio else _word(head, before - 4)
    if size > MAX_ARRAY_BYTES:
        raise ImpossibleEvent(f"{size:_} bytes are too many for one {kind.name} event")
    return before + size


def _measure_input(head: bytes, layout: Layout) -> int | None:
    if len(head) < 5:
        return None
    action = _word(head, 1)
    if action >= len(_INPUT_LENGTH):
        raise ImpossibleEvent(f"there is no INPUT of type {action}")
    if action != 0 or not layout.tagged_keys:
        return _INPUT_LENGTH[action]
    if len(head) < 9:
        return None
    key = _word(head, 5)
    if key >= len(_TAGGED_KEY_LENGTH):
        raise ImpossibleEvent(f"there is no INPUT key value of type {key}")
    return _TAGGED_KEY_LENGTH[key]


class Scanner:
    """Scans pieces of at most `chunk_bytes` of logs of one layout.

    Reuses the memory for its tables:
    Fresh memory for every piece costs three times the work itself, in page faults.
    """

    def __init__(self, chunk_bytes: int, layout: Layout) -> None:
        self._layout = layout
        self._places = np.arange(chunk_bytes + 1, dtype=np.intp)
        self._tables = [np.empty_like(self._places) for _ in range(_LEVELS + 1)]

    def scan(self, data: bytes, available: int) -> Scan:
        """Find the whole events from the first byte of `data` on, which must start an event.

        `available` is the number of bytes of log from there on: an event with an array
        is found even if the array goes on beyond `data`, but not beyond the log. The scan
        stops before an event that is cut off or impossible, and after END.
        """
        padded = data + _PADDING
        size = len(data)
        lengths = np.frombuffer(padded.translate(_LENGTH_OF_KIND), np.uint8)[:size]
        tables = [table[: size + 1] for table in self._tables]
        follow = tables[0]
        np.add(self._places[:size], lengths, out=follow[:size])
        follow[size] = size
        _follow_variable(padded, np.flatnonzero(lengths == _VARIABLE), follow, self._layout)
        _stop_at_the_edge(padded, follow, available, self._layout)
        starts = _chain(tables)
        kinds = np.frombuffer(padded, np.uint8)[starts]
        instructions = _count_instructions(padded, starts, kinds)
        keep = _sane_prefix(kinds, instructions)
        end = 0
        if keep:
            last = int(starts[keep - 1])
            end = last + (measure(padded[last : last + MIN_CHUNK_BYTES], self._layout) or 0)
        return Scan(padded, starts[:keep], kinds[:keep], instructions[:keep], end)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _words(data: bytes) -> NDArray[np.uint32]:
    """View `data` as the big-endian u32 that starts at each byte."""
    return np.ndarray((len(data) - 3,), ">u4", data, 0, (1,))


def _follow_variable(padded: bytes, places: Indices, follow: Indices, layout: Layout) -> None:
    """Fill in `follow` where an event with an array or an INPUT would start: at `places`."""
    kinds = np.frombuffer(padded, np.uint8)[places]
    words = _words(padded)
    for kind, at in _ARRAY_AT.items():
        here = places[kinds == kind]
        _follow_array(follow, here, words[here + at].astype(np.intp), at + 4)
    here = places[kinds == Kind.AUDIO_IN]
    frames = (words[here + 1].astype(np.uint64) << np.uint64(32)) | words[here + 5]
    frames = np.minimum(frames, np.uint64(MAX_ARRAY_BYTES // _AUDIO_FRAME + 1))
    _follow_array(follow, here, frames.astype(np.intp) * _AUDIO_FRAME, _audio_head(layout))
    here = places[kinds == Kind.INPUT]
    if not here.size:
        return
    action, key = words[here + 1], words[here + 5]
    length = _look_up(action, _INPUT_LENGTH)
    if layout.tagged_keys:
        length = np.where(action == 0, _look_up(key, _TAGGED_KEY_LENGTH), length)
    follow[here] = here + length


def _look_up(numbers: NDArray[np.uint32], lengths: tuple[int, ...]) -> Indices:
    """Return the length that stands at each of `numbers`."""
    choices = [numbers == number for number in range(len(lengths))]
    return np.select(choices, lengths, _IMPOSSIBLE)


def _follow_array(follow: Indices, here: Indices, size: Indices, before: int) -> None:
    follow[here] = here + np.where(size <= MAX_ARRAY_BYTES, before + size, _IMPOSSIBLE)


def _stop_at_the_edge(padded: bytes, follow: Indices, available: int, layout: Layout) -> None:
    """Make `follow` stay inside the piece: events cut off by its edge lead to themselves.

    Except one whose array goes on beyond the piece but is all in the log: it is
    known to be whole, and leads to the edge.
    """
    size = follow.size - 1
    beyond = np.flatnonzero(follow > size)
    kinds = np.frombuffer(padded, np.uint8)[beyond]
    head = np.full(256, follow.size, np.intp)
    for kind, at in _ARRAY_AT.items():
        head[kind] = at + 4
    head[Kind.AUDIO_IN] = _audio_head(layout)
    whole = (beyond + head[kinds] <= size) & (follow[beyond] <= available)
    follow[beyond] = np.where(whole, size, beyond)


def _chain(tables: list[Indices]) -> Indices:
    """Return the places that the first table leads to from 0 on, without that it stays at.

    The other tables are scratch: each becomes the square of the one before.
    """
    for table, square in pairwise(tables):
        # "clip" because checking the indices would cost a copy; they are all inside.
        np.take(table, table, out=square, mode="clip")
    stride = tables[-1].data
    places = []
    here, there = -1, 0
    while there != here:
        here = there
        places.append(here)
        there = stride[here]
    chain = np.array(places, np.intp)
    for table in reversed(tables[:-1]):
        both = np.empty((chain.size, 2), np.intp)
        both[:, 0] = chain
        both[:, 1] = table[chain]
        chain = both.reshape(-1)
    # The chain now ends in copies of the place it stays at.
    return chain[: np.searchsorted(chain, here)]


def _count_instructions(padded: bytes, starts: Indices, kinds: Bytes) -> Positions:
    """Return for each event the number of instructions it lets pass."""
    counts = np.zeros(starts.size, np.uint64)
    ran = np.flatnonzero(kinds == Kind.INSTRUCTION)
    counts[ran] = _words(padded)[starts[ran] + 1]
    return counts


def _sane_prefix(kinds: Bytes, instructions: Positions) -> int:
    """Return how many events come before an impossible count, or up to END."""
    of_instruction = kinds == Kind.INSTRUCTION
    bad = of_instruction & ((instructions == 0) | (instructions > MAX_INSTRUCTIONS))
    sane = int(bad.argmax()) if bad.any() else kinds.size
    ends = kinds[:sane] == Kind.END
    return int(ends.argmax()) + 1 if ends.any() else sane
