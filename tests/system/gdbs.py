"""Real gdbs on our server, which runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading

from retrograde.gdbserver.address import Address
from retrograde.gdbserver.server import GdbServer
from retrograde.timeline.timeline import Timeline

SECONDS = 120.0


@contextlib.contextmanager
def serving(recording, path):
    """Serve a timeline over `recording` at the socket `path` while the context lasts."""
    started, stop, failed = threading.Event(), [], []

    async def serve():
        async with (
            await Timeline.open(recording) as timeline,
            await GdbServer.start(timeline, Address(path=str(path))),
        ):
            ended = asyncio.Event()
            stop.append((asyncio.get_running_loop(), ended))
            started.set()
            await ended.wait()

    def run():
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(SECONDS)
    try:
        assert not failed, failed
        yield
    finally:
        if stop:
            loop, ended = stop[0]
            loop.call_soon_threadsafe(ended.set)
        thread.join()
    assert not failed, failed


def seek(gdb, position):
    gdb.command(f"monitor seek {position}")
    gdb.command("maintenance flush register-cache")
    gdb.command("maintenance flush dcache")
    assert where(gdb) == position


def where(gdb):
    found = re.search(r"at ([\d_]+) of", gdb.command("monitor when"))
    return int(found[1].replace("_", ""))


def go(gdb, line):
    return gdb.move(line, SECONDS)
