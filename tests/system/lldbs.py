"""Real lldb, told all its commands at once."""

from __future__ import annotations

import re
import subprocess

from tests.command import SECONDS

BY_HAND = "process plugin packet"
"""Before what is sent to the server as it is: `monitor ...`, `send bs`."""


def lldb(*commands):
    """Return what lldb says to each of `commands`."""
    words = [word for line in commands for word in ("-o", line)]
    done = subprocess.run(
        ["lldb", "-x", "-b", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    said = re.split(r"^\(lldb\) (?=.)", done.stdout, flags=re.MULTILINE)[1:]
    assert [one.partition("\n")[0] for one in said] == list(commands), done.stdout
    return [one.partition("\n")[2] for one in said]
