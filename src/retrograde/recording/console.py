"""Which console byte was written at which position.

The rr log holds one CHAR_WRITE event for each call a serial device makes to its
back end: how many bytes were written, but not the bytes. Those are in console.log,
in the same order, so the n-th byte that the events count is the n-th of the file.

What the event says (qemu_chr_write in QEMU's chardev/char.c): the last result of
the back end and the number of bytes it took in all. While recording, 10.0 retries
until all bytes are taken or the back end fails; 7.2 does not, and a call that took
only some bytes is followed by another for the rest. Either way `written` alone says
how many bytes reached the console, after a failure too. A call with several bytes
gives all of them one position. A 16550 writes byte by byte, virtio consoles many.

The position of a byte written by instruction k is k + 1: the machine at position
k + 1 has just written it, at k not yet. (x86 `rep outsb` counts each repetition.)

Several ports. CHAR_WRITE does not say which port wrote, and nothing else in the log
does: every chardev made by `-serial`, `-parallel` and `-debugcon` is counted, null ones
too, while one given to a device (`-device …,chardev=`) is not counted at all. A machine
with several ports that are kept has ports.log (see ports), which holds the bytes of all of
them in their order. Without it all that can be known is whether the counts add up. If
the log counts exactly the bytes of console.log, no other port wrote anything and the map
is exact. If it counts more, another port wrote too and no byte can be placed: that is an
error. A log that was cut off counts fewer, since QEMU writes it through a buffer and the
console not; the first bytes are then exact and the rest lies after the end of the log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import PositionError, RecordingError, UsageError
from .ports import PortBytes
from .rrevents import Kind
from .rrlog import RrLog
from .rrscan import Positions


class Found(NamedTuple):
    """Where text is on the console: the index of its first byte, and when that came."""

    byte: int
    position: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the console: `text` without its line end, from byte `index` on.

    `first` is the position of its first byte, `last` that of its last, the newline
    included.
    """

    index: int
    text: bytes
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ConsoleMap:
    """The bytes of the console and the position of each; `positions` never falls.

    `unplaced` is the number of further bytes in console.log that were written after
    the end of a log that was cut off.
    """

    data: bytes
    positions: Positions
    unplaced: int = 0

    @classmethod
    def of(cls, log: RrLog, console: bytes) -> ConsoleMap:
        """Place the bytes of console.log by the CHAR_WRITE events of `log`.

        Raises `RecordingError` if the log does not count these bytes.
        """
        positions = _placed(log, len(console))
        return cls(console[: positions.size], positions, len(console) - positions.size)

    @classmethod
    def of_ports(cls, log: RrLog, ports: PortBytes, numbers: range) -> dict[int, ConsoleMap]:
        """Place the bytes of the ports `numbers`, of which ports.log holds all.

        Raises as `of`.
        """
        positions = _placed(log, len(ports.data))
        chosen = {number: ports.port == number for number in numbers}
        return {
            number: cls(
                ports.of(number)[: int(own[: positions.size].sum())],
                positions[own[: positions.size]],
                int(own[positions.size :].sum()),
            )
            for number, own in chosen.items()
        }

    def __len__(self) -> int:
        return len(self.data)

    def position_of(self, index: int) -> int:
        """Return the position at which byte `index` has just been written."""
        if not 0 <= index < len(self):
            raise PositionError(
                f"Console byte {index:_} is not among the {len(self):_} in the log.",
                "Count from 0, up to the number of bytes on the console.",
            )
        return int(self.positions[index])

    def bytes_until(self, position: int) -> int:
        """Return how many bytes the console holds when the machine is at `position`."""
        return bisect_right(self.positions, position)

    def find(self, text: str | bytes, start: int = 0) -> Iterator[Found]:
        """Return where the first byte of each occurrence of `text` is.

        From byte `start` on, overlapping ones included. The position at which the
        whole text is on the console is `position_of(index + len(text) - 1)`.
        """
        wanted = text.encode() if isinstance(text, str) else text
        if not wanted or start < 0:
            raise UsageError(
                "A search of the console needs a text, and a byte to start from.",
                "Give at least one character, and count bytes from 0.",
            )
        return self._find(wanted, start)

    def lines(self) -> Iterator[Line]:
        """Return the lines in order; the last may lack its newline."""
        index = 0
        for raw in _split(self.data):
            last = index + len(raw) - 1
            yield Line(index, raw.rstrip(b"\r\n"), self.position_of(index), self.position_of(last))
            index = last + 1

    def _find(self, wanted: bytes, start: int) -> Iterator[Found]:
        index = self.data.find(wanted, start)
        while index >= 0:
            yield Found(index, self.position_of(index))
            index = self.data.find(wanted, index + 1)


def _split(data: bytes) -> Iterator[bytes]:
    """Cut `data` after each newline only: guests write lone carriage returns within a line."""
    start = 0
    while start < len(data):
        newline = data.find(b"\n", start)
        stop = newline + 1 if newline >= 0 else len(data)
        yield data[start:stop]
        start = stop


def _placed(log: RrLog, held: int) -> Positions:
    """Return the position of each byte that `log` counts; `held` bytes were kept."""
    at: list[Positions] = []
    written: list[np.ndarray[tuple[int], np.dtype[np.uint32]]] = []
    ended = False
    for batch in log.batches():
        # What is written at position 0 no instruction wrote: malta's LED bar is drawn, to
        # nowhere, when the board is made (hw/mips/malta.c).
        writes = np.flatnonzero((batch.kind == Kind.CHAR_WRITE) & (batch.position > 0))
        at.append(batch.position[writes])
        written.append(batch.words(writes, 5))
        ended = batch.ended
    counts = np.concatenate([np.zeros(0, np.uint32), *written])
    # Before the bytes get an array: a damaged count may be of billions.
    _check_count(int(counts.sum(dtype=np.uint64)), held, exact=ended)
    return np.repeat(np.concatenate([np.zeros(0, np.uint64), *at]), counts)


def _check_count(counted: int, held: int, *, exact: bool) -> None:
    if counted > held:
        raise RecordingError(
            f"The rr log counts {counted:_} bytes of serial output, console.log holds {held:_}: "
            "another serial port wrote too, and the log does not say which port wrote what.",
            "Record with a single -serial port.",
        )
    if exact and counted < held:
        raise RecordingError(
            f"The rr log counts {counted:_} bytes of serial output, console.log holds {held:_}: "
            "not all of it came through a recorded serial port.",
            "Record with the console on -serial, not on a -device with a chardev.",
        )
