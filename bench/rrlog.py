"""How fast the rr-log reader is, and how much memory it takes, on a log of 1 GB and more.

    python bench/rrlog.py [--gigabytes 1]

Writes a synthetic log with every kind of event, mixed as in the boot of a Linux
guest, into a temporary directory, and streams it.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlayout import FIRST
from retrograde.recording.rrlog import RrLog

# Events a thousand, from the log of a Debian kernel's boot; the rest once in a while.
BOOT = {
    Kind.INSTRUCTION: 296,
    Kind.CHECKPOINT_CLOCK_WARP_ACCOUNT: 341,
    Kind.CLOCK_HOST: 130,
    Kind.CHECKPOINT_CLOCK_VIRTUAL: 77,
    Kind.INTERRUPT: 74,
    Kind.CHECKPOINT_CLOCK_HOST: 65,
    Kind.CHAR_WRITE: 29,
}


def payload(kind: Kind, dice: random.Random) -> bytes:
    """Return a payload of the right shape."""
    match kind:
        case Kind.INSTRUCTION:
            return dice.randrange(1, 100_000).to_bytes(4, "big")
        case Kind.CHAR_WRITE:
            return b"\0\0\0\1\0\0\0\1"
        case Kind.INPUT:
            return bytes(7) + b"\1\0\0\0" + dice.randbytes(1) + b"\1"
        case Kind.CHAR_READ:
            return b"\0\0\0\0\5hello"
        case Kind.NET:
            size = dice.choice([64, 1500, 40_000])
            return bytes(5) + size.to_bytes(4, "big") + dice.randbytes(size)
        case Kind.CHAR_READ_ALL:
            return b"\0\0\0\3abc"
        case Kind.CHAR_READ_ALL_ERROR:
            return b"\xff\xff\xff\xf5"
        case Kind.AUDIO_IN:
            return (128).to_bytes(8, "big") + bytes(8) + dice.randbytes(128 * 16)
        case Kind.RANDOM:
            return bytes(7) + b"\x40" + dice.randbytes(64)
        case Kind.CLOCK_HOST | Kind.CLOCK_VIRTUAL_RT:
            return (1_700_000_000_000_000_000 + dice.randrange(10**12)).to_bytes(8, "big")
        case Kind.BH | Kind.BH_ONESHOT | Kind.BLOCK | Kind.AUDIO_OUT:
            return dice.randrange(10**9).to_bytes(8, "big")
    return b""


def block(dice: random.Random) -> tuple[bytes, np.ndarray, int]:
    """About 4 MB of events, how many of each kind there are, and how many instructions run."""
    out = bytearray()
    counts = np.zeros(256, np.int64)
    ran = 0
    rare = [kind for kind in Kind if kind not in BOOT and kind != Kind.END]
    while len(out) < 4 << 20:
        kinds = dice.choices(list(BOOT), list(BOOT.values()), k=1000)
        for kind in [*kinds, dice.choice(rare)]:
            body = payload(kind, dice)
            out += bytes([kind]) + body
            counts[kind] += 1
            ran += int.from_bytes(body, "big") if kind == Kind.INSTRUCTION else 0
    return bytes(out), counts, ran


def main() -> None:
    """Write, stream, check, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    wanted = int(parser.parse_args().gigabytes * 1e9)
    events, counts, ran = block(random.Random(1))
    blocks = -(-wanted // len(events))
    with tempfile.TemporaryDirectory(prefix="retrograde-bench-") as place:
        path = Path(place) / "replay.log"
        with path.open("wb") as file:
            file.write(FIRST.header)
            for _ in range(blocks):
                file.write(events)
            file.write(bytes([Kind.SHUTDOWN_HOST_SIGNAL, Kind.END]))
        report(path, counts * blocks, ran * blocks)


def report(path: Path, counts: np.ndarray, ran: int) -> None:
    """Stream the log and print the figures; fail if an event was missed."""
    counts[[Kind.SHUTDOWN_HOST_SIGNAL, Kind.END]] += 1
    start = time.perf_counter()
    summary = RrLog.open(path).summary()
    seconds = time.perf_counter() - start
    assert summary.last_position == ran
    assert summary.counts == {kind: counts[kind] for kind in Kind if counts[kind]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = sum(summary.counts.values())
    print(
        f"{summary.bytes / 1e9:.2f} GB, {total:_} events of {len(summary.counts)} kinds: "
        f"{seconds:.1f} s, {summary.bytes / 1e6 / seconds:.0f} MB/s, "
        f"{total / 1e6 / seconds:.1f} M events/s, peak RSS {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
