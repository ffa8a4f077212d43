"""Whether a process is at rest, and whether QEMU's queue of events is empty."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from retrograde.errors import QemuTimeout
from retrograde.machine import quiet

_THREADS = """
import os, sys, threading, time
def pool():
    while work:
        pass
    os.write(1, b"done")
work = True
thread = threading.Thread(target=pool)
thread.start()
os.write(1, b"busy")
sys.stdin.read(1)
work = False
thread.join()
os.write(1, b"idle")
while True:
    if SLEEP:
        time.sleep(SLEEP)
"""


def start(sleep: float) -> subprocess.Popen[bytes]:
    code = _THREADS.replace("SLEEP", str(sleep))
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, bufsize=0)


@pytest.mark.parametrize("sleep", (1000, 0.0005, 0))
async def test_rest_comes_when_the_pool_is_done(monkeypatch, sleep):
    """Also where the main thread wakes up all the time, or never sleeps."""
    with start(sleep) as process:
        try:
            assert process.stdout.read(4) == b"busy"
            monkeypatch.setattr(quiet, "REST_SECONDS", 0.3)
            with pytest.raises(QemuTimeout, match="still busy"):
                await quiet.rest(process.pid)
            monkeypatch.setattr(quiet, "REST_SECONDS", 30.0)
            process.stdin.write(b"x")
            assert process.stdout.read(4) == b"done"
            assert process.stdout.read(4) == b"idle"
            await quiet.rest(process.pid)
        finally:
            process.kill()


def test_a_process_that_ended_is_at_rest():
    process = subprocess.Popen(["true"])
    process.wait()
    asyncio.run(quiet.rest(process.pid))
