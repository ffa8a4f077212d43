"""The symbol table a Linux kernel carries in its own memory, found by its structure alone.

Distribution kernels come without symbols, but with CONFIG_KALLSYMS, for their own oopses.
What is in memory are the tables that scripts/kallsyms.c of the kernel's source writes:

names        for each symbol a length (LEB128 of one or two bytes since 6.1) and tokens;
             before them, aligned, the number of symbols
markers      u32: where in `names` each 256th symbol begins
token_table  256 strings that end in NUL: names are made of these, the first character of
             a name is its type
token_index  u16: where in token_table each of them begins
offsets      u32 for each symbol: its distance from `relative_base`, an address; with
             CONFIG_KALLSYMS_ABSOLUTE_PERCPU (x86 until 6.14) a signed number that is an
             address itself, or, if negative, one less than the distance negated

Up to 6.3 `offsets` and `relative_base` come before the number of symbols, since 6.4 after
token_index. Everything starts at a multiple of the word size. The base is a pointer that
the kernel relocates, so that what is found is right with KASLR too.

Pure: bytes in, symbols out.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

ByteOrder = Literal["little", "big"]
BYTE_ORDERS: Final[tuple[ByteOrder, ...]] = ("little", "big")
Ram = bytes | mmap.mmap

# Digits are used in names, so their tokens are themselves.
_DIGITS: Final = b"".join(bytes([digit, 0]) for digit in b"0123456789")
_TOKENS: Final = 256
_TOKEN_LIMIT: Final = 64
"""Bytes of a token at most: in real kernels a dozen."""
_NAME_LIMIT: Final = 512
"""Bytes of an encoded name at most: KSYM_NAME_LEN."""
_TABLES_LIMIT: Final = 32 << 20
"""Bytes that names and markers take at most: 8 MB for a kernel with every driver built in."""
_MARKED: Final = 256
_FEW: Final = 1 << 10
_MANY: Final = 1 << 22
"""Symbols a kernel has at least and at most."""


ANCHORS: Final = ("_stext", "_text")
"""Symbols where a kernel's code and its image begin."""


class Symbol(NamedTuple):
    """A name in the kernel; `type` is nm's letter."""

    address: int
    type: str
    name: str


@dataclass(frozen=True)
class _Tokens:
    """The token table at byte `start` of the memory; `stop` is where its index ends."""

    start: int
    stop: int
    tokens: list[bytes]
    order: ByteOrder


@dataclass(frozen=True)
class _Names:
    """`count` names from byte `start` on; `head` is where their number stands."""

    head: int
    start: int
    count: int


def find_symbols(ram: Ram) -> Iterator[list[Symbol]]:
    """Yield the symbols of each kernel whose tables lie in `ram`, by address.

    There is more than one where an old copy was left behind. The tables must be
    contiguous in `ram`, which holds for kernels: they lie in one physical piece.
    """
    digits = ram.find(_DIGITS, 0)
    while digits >= 0:
        tokens = _token_table(ram, digits)
        for word in (8, 4) if tokens else ():
            if found := tokens and _symbols(ram, tokens, word):
                yield found
                break
        digits = ram.find(_DIGITS, digits + 1)


def _token_table(data: Ram, digits: int) -> _Tokens | None:
    """Return the token table whose tokens for digits are at `digits`, if there is one."""
    stop, zero = digits, ord("0")
    for _ in range(_TOKENS - zero):
        stop = data.find(b"\0", stop, stop + _TOKEN_LIMIT) + 1
        if not stop:
            return None
    for order in BYTE_ORDERS:
        for align in (8, 4):
            at = _aligned(stop, align)
            index = _numbers(data, at, _TOKENS, 2, order).astype(int)
            if index.size < _TOKENS or index[0] or index[zero] > digits:
                continue
            start = digits - int(index[zero])
            tokens = data[start : stop - 1].split(b"\0")
            begins = np.cumsum([0, *(len(token) + 1 for token in tokens[:-1])])
            if len(tokens) == _TOKENS and np.array_equal(begins, index):
                return _Tokens(start, at + 2 * _TOKENS, tokens, order)
    return None


def _symbols(data: Ram, tokens: _Tokens, word: int) -> list[Symbol] | None:
    """Return the symbols of the kernel with this token table, if it has words of this size."""
    for names in _names(data, tokens, word):
        offsets = names.count * 4
        before = names.head - word
        for at, base_at in (
            (before - _aligned(offsets, word), before),
            (_aligned(tokens.stop, word), _aligned(_aligned(tokens.stop, word) + offsets, word)),
        ):
            base = data[base_at : base_at + word] if at >= 0 else b""
            if len(base) == word:
                distances = _numbers(data, at, names.count, 4, tokens.order)
                addresses = _addresses(distances, int.from_bytes(base, tokens.order), word)
                if addresses is not None:
                    return _decode(data, tokens, names, addresses)
    return None


def _names(data: Ram, tokens: _Tokens, word: int) -> Iterator[_Names]:
    """Yield the names that markers before the token table can belong to, the nearest first."""
    floor = max(0, tokens.start - _TABLES_LIMIT)
    floor = _aligned(floor, word)
    area = _numbers(data, floor, (tokens.start - floor) // 4, 4, tokens.order)
    rises = np.diff(area.astype(np.int64))
    step = (rises >= 2 * _MARKED) & (rises <= _NAME_LIMIT * _MARKED)
    # Markers begin with zero and rise by the bytes of 256 names each time.
    begins = np.flatnonzero((area[:-3] == 0) & step[:-2] & step[1:-1] & step[2:])
    for begin in reversed(begins.tolist()):
        if begin * 4 % word:
            continue
        flat = np.flatnonzero(~step[begin:])
        markers = area[begin : begin + 1 + (int(flat[0]) if flat.size else step.size - begin)]
        yield from _headed(data, floor + begin * 4, markers.astype(int), word, tokens.order)


def _headed(
    data: Ram, at: int, markers: NDArray[np.int_], word: int, order: ByteOrder
) -> Iterator[_Names]:
    """Yield the names that lie before their markers at `at`: those whose number fits."""
    last = at - int(markers[-1])
    for start in range(last - last % word, last - _MARKED * _NAME_LIMIT, -word):
        head = start - word
        if head < 0:
            return
        count = int.from_bytes(data[head : head + 4], order)
        blocks = -(-count // _MARKED)
        # What follows the markers may look like more of them.
        if not _FEW <= count <= _MANY or blocks > len(markers):
            continue
        if _walk(data, start, _MARKED) != start + markers[1]:
            continue
        ends = [*(start + markers[1:blocks]).tolist(), at]
        sizes = [*[_MARKED] * (blocks - 1), count - _MARKED * (blocks - 1)]
        begins = (start + markers[:blocks]).tolist()
        walked = [_walk(data, b, n) for b, n in zip(begins, sizes, strict=True)]
        if [*walked[:-1], _aligned(walked[-1], word)] == ends:
            yield _Names(head, start, count)


def _walk(data: Ram, at: int, count: int) -> int:
    """Return where `count` names from `at` on end; the end of the memory if they pass it."""
    for _ in range(count):
        if at + 2 > len(data):
            return len(data)
        begin, length = _name(data, at)
        at = begin + length
    return at


def _name(data: Ram, at: int) -> tuple[int, int]:
    """Return where the tokens of the name at `at` begin, and how many there are."""
    length = data[at]
    if length & 0x80:
        return at + 2, (length & 0x7F) | data[at + 1] << 7
    return at + 1, length


def _addresses(offsets: NDArray[np.uint32], base: int, word: int) -> NDArray[np.uint64] | None:
    """Return the addresses, if they rise as those of a kernel do."""
    signed = offsets.astype(np.int32).astype(np.int64)
    limit = 1 << 8 * word
    relative = np.uint64(base) + offsets.astype(np.uint64)
    percpu = np.where(signed >= 0, signed, 0).astype(np.uint64)
    absolute = np.where(signed >= 0, percpu, np.uint64(base) + (-1 - signed).astype(np.uint64))
    for addresses in (relative, absolute):
        if addresses.size and addresses[-1] < limit and base and _rises(addresses):
            return addresses
    return None


def _rises(addresses: NDArray[np.uint64]) -> bool:
    return bool((addresses[1:] >= addresses[:-1]).all() and addresses[0] < addresses[-1])


def _decode(
    data: Ram, tokens: _Tokens, names: _Names, addresses: NDArray[np.uint64]
) -> list[Symbol]:
    expand = tokens.tokens.__getitem__
    found = []
    at = names.start
    for address in addresses.tolist():
        begin, length = _name(data, at)
        at = begin + length
        text = b"".join(map(expand, data[begin:at])).decode("ascii", "replace")
        found.append(Symbol(address, text[:1], text[1:]))
    return found


def _numbers(data: Ram, at: int, count: int, size: int, order: ByteOrder) -> NDArray[Any]:
    """Return at most `count` unsigned numbers of `size` bytes from byte `at` on."""
    count = max(0, min(count, (len(data) - at) // size))
    return np.frombuffer(data, f"{'<' if order == 'little' else '>'}u{size}", count, at)


def _aligned(at: int, size: int) -> int:
    return -(-at // size) * size
