"""What the x86_64 guests should compute, worked out again in Python from their sources."""

from __future__ import annotations

import struct

_MASK = (1 << 64) - 1


def mix(total: int, value: int) -> int:
    return ((total << 7 & _MASK | total >> 57) + value) & _MASK


def xorshift(x: int) -> int:
    x ^= x << 13 & _MASK
    x ^= x >> 7
    return x ^ (x << 17 & _MASK)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _rounds(phases: int, work: int) -> int:
    x, total = 1, 0
    for _phase in range(phases):
        for _ in range(work):
            x = xorshift(x)
        total = mix(total, x)
    return total


def tiny() -> int:
    return _rounds(8, 250_000)


def apic() -> int:
    return _rounds(4, 100_000)


def hot() -> int:
    total = 0
    for hit in range(1_000_000, -1, -1):
        total = mix(total, hit)
    return total


def smp(vcpus: int) -> int:
    others = vcpus - 1
    rounds = 20_000 * vcpus
    total = 0
    for value in (rounds, rounds, 50 * vcpus * others, *(count * others for count in _TIMES)):
        total = mix(total, value)
    return total


_TIMES = (20, 100, 50, 20)
"""What each of the others took part in: NMIs, patches, mappings, waking."""


def nested() -> int:
    ticks, deepest = 1500, 4
    return mix(mix(mix(0, ticks), ticks), deepest)


def syscall() -> int:
    x, total = 1, 0
    for turn in range(50_000, 0, -1):
        x = xorshift(x)
        total = mix(total, x)
        x = x + (total & 0xFFFFFFFF) & _MASK
        total = mix(total, x)
        x ^= total >> 32
        if turn & 0xFF == 0:
            total = mix(total, 0x0D)
    return total


def smc() -> int:
    x, total, immediate = 1, 0, 0x11111111
    for _ in range(4000):
        x = xorshift(x)
        low = x & 0xFFFFFFFF
        total = mix(total, low)
        total = total + 1 + _signed(x & 0xFF, 8) & _MASK
        total = mix(total, low)
        for _turn in range(3):
            total = total + _signed(immediate, 32) & _MASK
            immediate = immediate + low & 0xFFFFFFFF
        total = mix(mix(total, low), low)
        total = total ^ 0x2A if x & 1 else total + 0x15 & _MASK
    return total


def moves() -> int:
    value = 0x1BADB002DEADBEEF
    part = value >> 32 & 0xFFFF
    return mix(mix(mix(0, value), part), value + part)


ALIASES = {
    "x86_64": (0x102000, 0x40003000, 0x40008000),
    "i386": (0x102000, 0x40003000, 0x40008000),
    "arm": (0x40101000, 0x70003000, 0x70008000),
    "riscv64": (0x80001000, 0x40003000, 0x40008000),
}
"""Where the guests of that name have their page of code: in the image, and mapped."""


FAULTS = {
    "riscv64": (11, 3, 2, 5, 7, 1, 2, 8),
    "riscv32": (11, 3, 2, 5, 7, 1, 2, 8),
    "arm": (2, 1, 4, 4, 3),
    "ppc64": (0xC00, 0x700, 0x700, 0x800, 0x600, 0x200, 0x380, 0x300, 0x300, 0x480),
    "aarch64": (
        *(0x56000017, 0x02000000, 0xF200002A, 0x96000010, 0x96000050, 0x86000010),
        *(0x02000000, 0x92000010, 0x56000018),
    ),
}
"""What each exception of a round of the guests of that name adds: its cause, vector or syndrome."""


def faults(target: str) -> int:
    total = 0
    for cause in FAULTS[target] * 200:
        if target in ("aarch64", "ppc64"):
            total = _mix32(total, cause)
        else:
            total = total + cause & 0xFFFFFFFF
            total = (total << 7 | total >> 25) & 0xFFFFFFFF
    return total


def aliases() -> int:
    first, second, third = ALIASES["x86_64"]
    x, total = 0x1234567, 0
    for _ in range(3000):
        x = xorshift(x)
        for place in (first, *[second] * (x % 2), third):
            total = mix(total, place)
            for _turn in range(4):
                total = mix(total, x)
            total += not x & 2
    return total & _MASK


def portable_aliases(target: str) -> int:
    """What aliases computes on every target but x86_64, in 32 bits."""
    first, second, third = ALIASES[target]
    x, total = 0x1234567, 0
    for _ in range(3000):
        x = congruence(x)
        for place in (first, *[second] * (x >> 16 & 1), third):
            total = _mix32(total, place)
            for _turn in range(4):
                total = _mix32(total, x)
            total = total + (not x & 0x20000) & 0xFFFFFFFF
    return total


def calls_of_alias(target: str) -> int:
    """Return how often the place in the middle is called: where the others always are."""
    x, calls = 0x1234567, 0
    for _ in range(3000):
        x = xorshift(x) if target == "x86_64" else congruence(x)
        calls += x % 2 if target == "x86_64" else x >> 16 & 1
    return calls


def stacks() -> int:
    total = 0
    for thread in (1, 2, 3):
        total = mix(total, _stacks_thread(thread))
    return total


def _stacks_thread(x: int) -> int:
    total = 0
    for turn in range(60_000, 0, -1):
        x = xorshift(x)
        total = mix(total, x)
        if turn & 0xFF == 0:
            total = mix(total, total)
            for level in reversed(_recursion(x, 20)):
                total = mix(total, level)
    return total


def _recursion(x: int, depth: int) -> list[int]:
    levels = []
    for _ in range(depth):
        x = xorshift(x)
        levels.append(x)
    return levels


def rep() -> int:
    length, margin = 0x10000, 16
    source, target = bytearray(length + 2 * margin), bytearray(length + 2 * margin)
    base = margin  # the guest's SOURCE and TARGET; bytes around them start as zero
    x, total = 1, 0

    def fold(total: int) -> int:
        for (word,) in struct.iter_unpack("<Q", target[base : base + length]):
            total = mix(total, word)
        return total

    for _ in range(7):
        for at in range(base, base + length, 8):
            x = xorshift(x)
            source[at : at + 8] = struct.pack("<Q", x)
        target[base + 1 : base + 1 + length] = source[base : base + length]
        total = fold(total)
        target[base : base + length] = source[base + 3 : base + 3 + length]
        total = fold(total)
        target[base + 16 : base + length - 16] = bytes([x & 0xFF]) * (length - 32)
        total = fold(total)
        for at in range(base, base + length // 2):
            source[at + 7] = source[at]
        target[base - 4 : base + length - 4] = source[base - 4 : base + length - 4]
        total = fold(total)
        found = target.find(x & 0xFF, base, base + length) - base
        total = mix(total, length - found - 1 if found >= 0 else 0)
        equal = next(at for at in range(length) if source[base + at] != source[base + at + 7])
        total = mix(total, length - equal - 1)
    return total


def congruence(x: int) -> int:
    return x * 1664525 + 1013904223 & 0xFFFFFFFF


def _mix32(total: int, value: int) -> int:
    return (total << 7 | total >> 25) + value & 0xFFFFFFFF


def portable() -> int:
    """What tiny computes on every target but x86_64, in 32 bits."""
    x, total = 1, 0
    for _phase in range(4):
        for _ in range(250_000):
            x = congruence(x)
        total = _mix32(total, x)
    return total


def frames() -> int:
    x, total = 1, 0
    for _ in range(2 * 6000):
        x = congruence(x)
        total = _mix32(total, x)
    return total
