"""The bar shown on a terminal while something takes long."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys

SHOWN = """
import time
from retrograde.cli.output import progress

with progress("indexing", 2_000_000_000) as show:
    show(1_000_000_000)  # done by an earlier run: no measure of the rate
    for number in range(1, 21):
        time.sleep(0.02)
        show(1_000_000_000 + number * 1_000_000)
"""


def test_rate_and_time_left() -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", SHOWN]
    process = subprocess.Popen(command, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # at the end of a terminal
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)
    assert process.wait() == 0
    told = re.findall(r"indexing .*?([\d_]+)\D*? (\d+) M/s\S* \S*?(\d+:\d+:\d+)", shown.decode())
    position, rate, left = told[-1]
    assert position == "1_020_000_000"
    assert 0 < int(rate) <= 50  # 1 M in 20 ms, or slower on a busy machine
    hours, minutes, seconds = map(int, left.split(":"))
    assert 0.5 < (3600 * hours + 60 * minutes + seconds) * int(rate) / 980 < 2


SILENT = """
import threading
from retrograde.cli.waiting import Waiting

said, heard = [], threading.Semaphore(0)

def say(text):
    said.append(text)
    heard.release()

with Waiting(say, "starting", pause=0.001) as waiting:
    heard.acquire()
    waiting.tell("")
    waiting.tell("replaying, at 5")
    while said[-1] != "replaying, at 5 ...":
        heard.acquire()
assert set(said) == {"starting ...", "replaying, at 5 ..."}
assert threading.active_count() == 1
with Waiting(say, "short"):
    pass
assert "short ..." not in said
"""


def test_a_long_wait_says_what_it_is_for() -> None:
    subprocess.run([sys.executable, "-c", SILENT], check=True, timeout=60)


TOLD = """
import retrograde.cli.waiting as waiting
from retrograde.cli import output

class Told:
    def __init__(self, say, text):
        self.tell(text)
    def tell(self, text):
        print(text)
    def __enter__(self):
        return self
    def __exit__(self, *unused):
        pass

output.Waiting = Told
for meanwhile in (None, "asking", ""):
    with output.progress("replaying", 1000, meanwhile) as show:
        for position in (0, 500, 1000):
            show(position)
with output.progress("recording", None) as show:
    show(500)
with output.status("verifying") as show:
    show("proving")
"""


def test_what_is_said_without_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True)
    at = "replaying, at 500 of 1_000"
    assert done.stdout.splitlines() == [
        *("replaying", "replaying", at, "replaying"),
        *("asking", "replaying", at, "asking"),
        *("", "replaying", at, ""),
        *("recording", "recording, at 500"),
        *("verifying", "proving"),
    ], done.stderr
