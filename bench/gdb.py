"""Stock gdb on our server beside stock gdb on QEMU's own stub: same recording, same script.

    python bench/gdb.py boot.retro --at 70% --back 'console:"Linux version"'

Prints one JSON document: seconds by operation for both, and the ratio. The stub takes
minutes per operation on long recordings: `--only ours` leaves it out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import statistics
import tempfile
import time
from pathlib import Path

from retrograde.gdbserver.address import Address
from retrograde.gdbserver.server import GdbServer
from retrograde.guests.builtin import builtin_guest
from retrograde.isa.isa import isa_for
from retrograde.machine.compat import qemu_for
from retrograde.machine.recorder import record
from retrograde.machine.replayer import Replayer
from retrograde.machine.wiring import GdbListener
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from retrograde.verify.gdbmi import GdbMi
from retrograde.wire.rsp import encode

SECONDS = 1800.0
MEGABYTE = 1 << 20
DENSE = ("x86_64", "i386", "aarch64", "arm", "ppc64", "mipsel", "m68k")


@contextlib.asynccontextmanager
async def ours(recording, at):
    """Yield the socket of our server, parked at `at`."""
    with tempfile.TemporaryDirectory(prefix="retrograde-") as folder:
        address = Address(path=f"{folder}/gdb")
        timeline = await Timeline.open(recording, at=at)
        async with timeline, await GdbServer.start(timeline, address):
            yield address.path


@contextlib.asynccontextmanager
async def stub(recording, at):
    """Yield the socket of QEMU's own stub, parked at `at`."""
    with GdbListener() as listener:
        qemu = qemu_for(recording)
        async with await Replayer.start(recording, qemu, gdb_listener=listener) as replayer:
            await replayer.save_for_gdb()
            await replayer.run_to(at)
            yield listener.path


def script(path, steps, back_pc):
    """Run the operations in gdb; return seconds by operation."""
    took = {}
    with GdbMi() as gdb:
        gdb.command("set architecture i386:x86-64")
        gdb.connect(path, SECONDS)
        gdb.move("reverse-stepi", SECONDS)  # what the first costs is told apart
        took["reverse-stepi p50"] = statistics.median(
            timed(gdb, "reverse-stepi") for _ in range(steps)
        )
        took["stepi p50"] = statistics.median(timed(gdb, "stepi") for _ in range(steps))
        gdb.command(f"break *{back_pc:#x}")
        took["reverse-continue"] = timed(gdb, "reverse-continue")
        start = back_pc & -MEGABYTE
        began = time.monotonic()
        gdb.command(f"dump memory /dev/null {start:#x} {start + MEGABYTE:#x}")
        took["read 1 MB"] = time.monotonic() - began
    return took


def served(path, start):
    """Return bytes a second of memory that the server hands out, to a client that only waits."""
    chunk, size = 1 << 16, 8 * MEGABYTE
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        link.sendall(encode(b"QStartNoAckMode"))
        answer(link)
        began = time.monotonic()
        for at in range(start, start + size, chunk):
            link.sendall(encode(b"m%x,%x" % (at, chunk)))
            answer(link)
        return size / (time.monotonic() - began)


def answer(link):
    """Wait for the end of a packet, `#` and two digits."""
    tail = b""
    while tail[-3:-2] != b"#":
        tail = (tail + link.recv(1 << 18))[-3:]


def timed(gdb, line):
    began = time.monotonic()
    gdb.move(line, SECONDS)
    return time.monotonic() - began


async def in_the_hot_guest(folder):
    """Return what needs a guest of known code: false conditions, and long reverse-nexts."""
    guest = builtin_guest("hot")
    recording = await record(folder / "hot.retro", guest.qemu_args, target=guest.target)

    def run(path, *lines):
        with GdbMi() as gdb:
            gdb.command(f"file {guest.files[0]}")
            gdb.connect(Path(path))
            gdb.place = re.search(r"0x[0-9a-f]+", gdb.command("info address tight"))[0]
            return [line(gdb) for line in lines]

    def false_conditions(gdb):
        gdb.command(f"break *{gdb.place} if $rbx == 0x123456789abc")
        return 1e6 / timed(gdb, "continue")

    def false_by_pointer(gdb):
        gdb.command(f"break *{gdb.place} if *(int*)*(long*)($rsp + 8) == 0x12345678")
        return 1e6 / timed(gdb, "continue")

    def thousand_hits(gdb):
        """Go over 1000 hits of a function and back over as many."""
        gdb.command("break *&hot")
        gdb.move("continue", SECONDS)
        return there_and_back(gdb)

    def thousand_accesses(gdb):
        """Go over 1000 accesses to a word of the stack and back over as many."""
        gdb.command("break *&hot")
        gdb.move("continue", SECONDS)
        gdb.command("delete")
        gdb.command("awatch -l *(long*)$rsp")
        gdb.move("continue", SECONDS)
        return there_and_back(gdb)

    def there_and_back(gdb):
        took = []
        for resume in ("continue", "reverse-continue"):
            gdb.command("ignore $bpnum 1000")
            took.append(timed(gdb, resume))
        return took

    def stock_hits(gdb):
        gdb.command("break *&hot")
        gdb.move("continue", SECONDS)
        gdb.command("ignore $bpnum 100")
        return timed(gdb, "continue")

    def reverse_next(gdb):
        """Go back out of `tight` from its 500th instruction."""
        gdb.command(f"break *{gdb.place} if $rcx == 1000000 - 250")
        gdb.move("continue", SECONDS)
        gdb.command("delete")
        took = timed(gdb, "reverse-next")
        assert gdb.register("rcx") == 0  # before it was set
        gdb.command("monitor start")
        gdb.command("maintenance flush register-cache")
        return took

    async with ours(recording, 1000) as path:
        (rate,) = await asyncio.to_thread(run, path, false_conditions)
    async with ours(recording, 1000) as path:
        (by_pointer,) = await asyncio.to_thread(run, path, false_by_pointer)
    async with ours(recording, 1000) as path:
        (hits,) = await asyncio.to_thread(run, path, thousand_hits)
    async with ours(recording, 1000) as path:
        (accesses,) = await asyncio.to_thread(run, path, thousand_accesses)
    async with stub(recording, 1000) as path:
        (stock,) = await asyncio.to_thread(run, path, stock_hits)
    async with ours(recording, 1000) as path:
        times = await asyncio.to_thread(run, path, *[reverse_next] * 5)
    return {
        "false conditions a second": rate,
        "the same through two pointers": by_pointer,
        "1000 hits forward": hits[0],
        "1000 hits backward": hits[1],
        "1000 accesses forward": accesses[0],
        "1000 accesses backward": accesses[1],
        "100 hits forward, stock": stock,
        "reverse-next over 500, first": times[0],
        "reverse-next over 500, p50": statistics.median(times),
    }


async def in_dense_guests(folder, steps):
    """Return the p50 of reverse-stepi for a guest of each ISA whose ticks come thickest."""
    results = {}
    for target in DENSE:
        guest, isa = builtin_guest("tiny", target), isa_for(target)
        arguments = [*guest.qemu_args, "-icount", "shift=10"]
        recording = await record(folder / f"{target}.retro", arguments, target=target)

        def run(path, count, isa=isa):
            with GdbMi("gdb-multiarch") as gdb:
                gdb.command(f"set architecture {isa.gdb_architecture}")
                gdb.command(f"set endian {isa.byte_order}")
                gdb.connect(Path(path), SECONDS)
                gdb.move("reverse-stepi", SECONDS)
                return statistics.median(timed(gdb, "reverse-stepi") for _ in range(count))

        for name, serve, count in (("ours", ours, steps), ("stub", stub, 3)):
            async with serve(recording, recording.resolve("50%")) as path:
                took = await asyncio.to_thread(run, path, count)
                results[f"reverse-stepi p50, {target}, {name}"] = took
    return results


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--at", default="70%")
    parser.add_argument("--back", default='console:"Linux version"', help="break here, backwards")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", choices=("ours", "stub"))
    options = parser.parse_args()
    recording = Recording.open(options.recording)
    at, back = recording.resolve(options.at), recording.resolve(options.back)
    async with await Timeline.open(recording, at=back) as timeline:
        back_pc = await timeline.pc()
    results = {"at": at, "back": back}
    for name, serve in (("ours", ours), ("stub", stub)):
        if options.only in (None, name):
            async with serve(recording, at) as path:
                steps = options.steps if name == "ours" else 3
                results[name] = await asyncio.to_thread(script, Path(path), steps, back_pc)
                if name == "ours":
                    rate = await asyncio.to_thread(served, path, back_pc & -MEGABYTE)
                    results["bytes of memory served a second"] = rate
    if "ours" in results and "stub" in results:
        results["ratio"] = {k: results["stub"][k] / v for k, v in results["ours"].items()}
    with tempfile.TemporaryDirectory() as folder:
        results |= await in_the_hot_guest(Path(folder))
        results |= await in_dense_guests(Path(folder), 100)
    print(json.dumps(results, indent=2))


asyncio.run(main())
