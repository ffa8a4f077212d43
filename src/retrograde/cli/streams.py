"""Our standard streams, whatever we were started with: closed, or not of Unicode."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def prepare() -> None:
    """Make the three streams such that writing to them is no error for what they are.

    Closed ones (`2>&-`) lead nowhere: the next file to be opened, QEMU's log perhaps, would
    get the number and all we print. What the encoding lacks is written as an escape.
    """
    for number, mode in enumerate(("r", "w", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, so this one.
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
    sys.stdin = sys.stdin or _stream(0)
    sys.stdout = sys.stdout or _stream(1)
    sys.stderr = sys.stderr or _stream(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Send what is still to be written to nowhere: Python would complain of it at exit."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _stream(number: int) -> io.TextIOWrapper:
    mode = "r" if number == 0 else "w"
    binary = io.FileIO(number, mode, closefd=False)
    buffered = io.BufferedReader(binary) if number == 0 else io.BufferedWriter(binary)
    return io.TextIOWrapper(buffered, "utf-8", "backslashreplace", line_buffering=True)
