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
