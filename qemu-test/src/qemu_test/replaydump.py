"""What QEMU's `scripts/replay-dump.py` is to the tests: a check that a log is sound."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retrograde.errors import RetrogradeError
from retrograde.recording.rrlog import RrLog


def main() -> int:
    """Count the events of the log given with `-f`; exit code 1 when it is damaged."""
    parser = argparse.ArgumentParser(description="Check an rr log of QEMU, count its events.")
    parser.add_argument("-f", "--file", type=Path, required=True)
    log: Path = parser.parse_args().file
    try:
        found = RrLog.open(log).summary()
    except RetrogradeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for kind, count in found.counts.items():
        sys.stdout.write(f"{count:12} {kind.name.lower()}\n")
    if not found.ended:
        sys.stderr.write(f"{log} was not finished: its recorder was killed.\n")
        return 1
    return 0
