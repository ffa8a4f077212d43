"""Make an rr log that QEMU replays to a clean end out of one that was never finished.

A killed recorder leaves a header of zeros and, since QEMU writes the log through a
4 KiB stdio buffer, ends in the middle of anything. QEMU then refuses the header
("invalid input log file version") or, with the header put right, exits with "error
reading the replay data" when it meets the end of the file.

Cutting after the last whole event is not enough. Events such as CHAR_WRITE belong
to an instruction that an INSTRUCTION event before them has already accounted for:
replaying that instruction without its event makes QEMU abort. Right before an
INSTRUCTION event nothing is pending: QEMU had written all it had to before it ran
those instructions. So the copy ends there, with the two events QEMU itself ends a
log with: SHUTDOWN by host-signal and END (replay_finish in QEMU's replay/replay.c).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Final

import numpy as np

from ..errors import LogCorrupt
from .folder import open_regular
from .rrevents import Kind
from .rrlayout import HEADER_BYTES
from .rrlog import LogSummary, RrLog

_ENDING: Final = bytes((Kind.SHUTDOWN_HOST_SIGNAL, Kind.END))


def write_repaired_copy(source: RrLog, destination: Path | str) -> LogSummary:
    """Copy the log `source` to the new file `destination` so that QEMU can replay it.

    Whatever is missing at the end of `source` costs at most the instructions of its
    last INSTRUCTION event. Returns the summary of the copy, whose `end` is the
    position at which its replay ends: the same as that of `source` when read with
    `salvage`. A log that is whole is copied as it is. Raises `LogCorrupt` if the log
    is damaged elsewhere than at its end, or has nothing to replay; FileExistsError
    if `destination` exists.
    """
    log = dataclasses.replace(source, salvage=True)
    keep, ended = _replayable_bytes(log)
    with open_regular(log.path) as old, Path(destination).open("xb") as new:
        old.seek(HEADER_BYTES)
        new.write(log.layout.header)
        shutil.copyfileobj(old, new)
        new.truncate(keep)
        new.seek(keep)
        if not ended:
            new.write(_ENDING)
        new.flush()
        os.fsync(new.fileno())
    return RrLog.open(destination).summary()


def _replayable_bytes(log: RrLog) -> tuple[int, bool]:
    """Return how many bytes of the log QEMU can replay, and whether END is among them."""
    keep = None
    for batch in log.batches():
        if batch.ended:
            return batch.end, True
        ran = np.flatnonzero(batch.kind == Kind.INSTRUCTION)
        if ran.size:
            keep = batch.offset[ran[-1]].item()
    if keep is None:
        raise LogCorrupt(
            f"The rr log {log.path} holds no whole INSTRUCTION event: there is nothing to replay.",
            "Record anew and let the guest run for a moment.",
        )
    return keep, False
