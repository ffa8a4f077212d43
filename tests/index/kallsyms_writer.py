"""A writer of a Linux kernel's symbol tables, from the description of their layout."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from retrograde.index.symbols.kallsyms import Symbol

Layout = Literal["before 6.4", "since 6.4"]


def tables(
    symbols: Sequence[Symbol],
    base: int,
    *,
    layout: Layout = "before 6.4",
    percpu: bool = False,
    order: Literal["little", "big"] = "little",
    word: int = 8,
) -> bytes:
    """The tables for `symbols`, which rise by address, from a multiple of `word` on."""
    mark = "<" if order == "little" else ">"

    def numbers(letter: str, values: Sequence[int]) -> bytes:
        return padded(struct.pack(f"{mark}{len(values)}{letter}", *values))

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % word)

    def distance(address: int) -> int:
        if not percpu:
            return address - base
        return address if address < base else base - 1 - address

    texts = [(symbol.type + symbol.name).encode() for symbol in symbols]
    tokens = choose_tokens(texts)
    names, markers = bytearray(), []
    for number, text in enumerate(texts):
        if number % 256 == 0:
            markers.append(len(names))
        names += encode(text, tokens)
    offsets = numbers("i" if percpu else "I", [distance(symbol.address) for symbol in symbols])
    offsets += padded(base.to_bytes(word, order))
    index = [0]
    for token in tokens[:-1]:
        index.append(index[-1] + len(token) + 1)
    parts = [
        numbers("I", [len(symbols)]),
        padded(bytes(names)),
        numbers("I", markers),
        padded(b"".join(token + b"\0" for token in tokens)),
        numbers("H", index),
    ]
    return b"".join([offsets, *parts] if layout == "before 6.4" else [*parts, offsets])


def choose_tokens(texts: Sequence[bytes]) -> list[bytes]:
    """256 tokens: characters in use stand for themselves, the rest are frequent pairs."""
    used = {byte for text in texts for byte in text} | set(b"0123456789")
    pairs = Counter(text[at : at + 2] for text in texts for at in range(len(text) - 1))
    frequent = [pair for pair, _ in pairs.most_common(256)]
    frequent += [b"~%d" % number for number in range(256)]
    free = iter(frequent)
    return [bytes([code]) if code in used else next(free) for code in range(256)]


def encode(text: bytes, tokens: Sequence[bytes]) -> bytes:
    codes = {token: code for code, token in enumerate(tokens)}
    out = bytearray()
    at = 0
    while at < len(text):
        size = 2 if text[at : at + 2] in codes and at + 2 <= len(text) else 1
        out.append(codes[text[at : at + size]])
        at += size
    length = len(out)
    head = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
    return head + bytes(out)
