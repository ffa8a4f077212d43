"""What a machine wrote through several ports, in one order: ports.log.

The rr log counts the bytes that all ports wrote and does not say which port wrote them
(see console). A machine with more than one port therefore has this file: runs of bytes in
the order they were written, each with the number of its port (those of
`MachineSpec.ports`). A run is one byte with the number, four with the length, most significant
first, and its bytes.
"""

from __future__ import annotations

import array
import itertools
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import RecordingError

_HEADER = struct.Struct(">BI")


@dataclass(frozen=True)
class PortBytes:
    """`data` is all bytes in the order they were written, `port` the number of each's port."""

    data: bytes
    port: NDArray[np.uint8]

    def of(self, number: int) -> bytes:
        """Return the bytes of one port."""
        return bytes(np.frombuffer(self.data, np.uint8)[self.port == number])


def encode_runs(runs: Iterable[tuple[int, bytes]]) -> bytes:
    """Return what keeps runs of bytes, each of a port's number.

    Those of one port in a row become one.
    """
    content = bytearray()
    for port, group in itertools.groupby(runs, key=lambda run: run[0]):
        data = b"".join(run for _, run in group)
        content += _HEADER.pack(port, len(data)) + data
    return bytes(content)


def read_runs(content: bytes, ports: int, *, whole: bool) -> PortBytes:
    """Return what is in a ports.log of a machine with so many `ports`.

    Unless it is `whole`, the last run may be cut off. Raises RecordingError where that or a
    number of a port is wrong.
    """
    data = bytearray()
    numbers = bytearray()
    lengths = array.array("I")  # a file made of short runs fills memory no faster than itself
    at = 0
    while len(content) - at >= _HEADER.size:
        port, length = _HEADER.unpack_from(content, at)
        at += _HEADER.size
        run = content[at : at + length]
        if port >= ports or not length or (whole and len(run) < length):
            raise _damaged()
        data += run
        numbers.append(port)
        lengths.append(len(run))
        at += length
    if whole and at != len(content):
        raise _damaged()
    return PortBytes(bytes(data), np.repeat(np.frombuffer(numbers, np.uint8), lengths))


def _damaged() -> RecordingError:
    return RecordingError(
        "ports.log is not what was recorded.", "Take the recording from its source again."
    )
