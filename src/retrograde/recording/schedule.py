"""Which processor ran when, of a machine with several: schedule.log.

The rr log says what happened and not on which processor. A machine with several runs one at a
time, and this file says from which byte of the log on which one. The file is a head of ten
bytes, the last one the number of processors, and a number for each change: how many bytes of
the log lie between it and the change before, times the number of processors, plus
the processor that runs from there on. Numbers are written in groups of seven bits, the lowest
first; the highest bit of a byte says that another follows. Processor 0 runs first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrograde.errors import RecordingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrograde.recording.rrlog import RrLog

MAGIC = b"rtroschd\x01"

HEAD_BYTES = len(MAGIC) + 1

MOST_GROUPS = 8
"""Groups of seven bits that a number may have: logs are shorter than 2^50 bytes."""

SCHEDULE_LIMIT = 1 << 30
"""Bytes of the file that are read at most; a change takes one to three."""

_REMEDY = "Take the recording from its source again."


@dataclass(frozen=True)
class Schedule:
    """From the byte `offset[i]` of the log on the processor `vcpu[i]` runs."""

    vcpus: int
    offset: NDArray[np.uint64]
    vcpu: NDArray[np.uint64]

    def table(self) -> bytes:
        """Return it as the scheduler takes it (probe/schedule.c): pairs of 64-bit numbers."""
        return np.stack([self.offset, self.vcpu], axis=1).tobytes()

    def positions(self, log: RrLog) -> NDArray[np.uint64]:
        """Return the position of each change.

        Raises RecordingError where one is not between two events of `log`, as in the schedule
        of another recording. What lies behind the end of a log that is cut off is left out.
        """
        found = [np.zeros(0, np.uint64)]
        done, end = 0, 0
        for batch in log.batches():
            upto = int(np.searchsorted(self.offset, batch.end))
            wanted = self.offset[done:upto]
            at = np.searchsorted(batch.offset, wanted)
            if not np.array_equal(batch.offset[np.minimum(at, len(batch.offset) - 1)], wanted):
                raise _foreign()
            found.append(batch.position[at])
            done, end = upto, batch.end
        if log.finalized and not log.salvage and any(self.offset[done:] > end):
            raise _foreign()
        return np.concatenate(found)


def encode_schedule(vcpus: int, changes: Iterable[tuple[int, int]]) -> bytes:
    """Return the file for changes (offset, vcpu), as the scheduler writes it."""
    content, last = bytearray((*MAGIC, vcpus)), 0
    for offset, vcpu in changes:
        number = (offset - last) * vcpus + vcpu
        last = offset
        while number > 0x7F:
            content.append(number & 0x7F | 0x80)
            number >>= 7
        content.append(number)
    return bytes(content)


def read_schedule(content: bytes, vcpus: int, *, whole: bool) -> Schedule:
    """Return what is in a schedule.log of a machine with so many `vcpus`.

    Unless it is `whole`, the last number may be cut off. Raises RecordingError where anything
    is wrong.
    """
    if content[:HEAD_BYTES] != bytes((*MAGIC, vcpus)):
        raise _damaged(f"it is not one of {vcpus} processors")
    data = np.frombuffer(content, np.uint8, offset=HEAD_BYTES)
    ends = np.flatnonzero(data < 0x80) + 1
    if whole and len(data) and (not len(ends) or ends[-1] != len(data)):
        raise _damaged("it is cut off")
    starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)[: len(ends)]
    lengths = ends - starts
    if len(lengths) and lengths.max() > MOST_GROUPS:
        raise _damaged("a number is too large")
    numbers = np.zeros(len(ends), np.uint64)
    for group in range(int(lengths.max(initial=0))):
        has = lengths > group
        part = data[starts[has] + group].astype(np.uint64) & np.uint64(0x7F)
        numbers[has] |= part << np.uint64(7 * group)
    steps = numbers // np.uint64(vcpus)
    if not steps.all():
        raise _damaged("two changes are at one place")
    offset = np.cumsum(steps, dtype=np.uint64)
    if len(offset) and (offset[1:] < offset[:-1]).any():
        raise _damaged("a number is too large")
    return Schedule(vcpus, offset, numbers % np.uint64(vcpus))


def _damaged(why: str) -> RecordingError:
    return RecordingError(f"schedule.log is not what was recorded: {why}.", _REMEDY)


def _foreign() -> RecordingError:
    return RecordingError("schedule.log does not belong to this replay.log.", _REMEDY)
