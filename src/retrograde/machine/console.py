"""The guest's console while it runs: a pipe we drain, so a chatty guest never blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Self

Sink = Callable[[bytes], object]


class ConsolePipe:
    """A pipe QEMU writes the console into; everything read goes to `sink`.

    An async context manager: leaving it reads what is left. `write_fd` is for QEMU.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._read_fd, self._drain)
        return self

    async def __aexit__(self, *unused: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read_fd)
        os.close(self.write_fd)
        try:
            self._drain()
        finally:
            os.close(self._read_fd)

    def _drain(self) -> None:
        try:
            while data := os.read(self._read_fd, 1 << 16):
                self._sink(data)
        except BlockingIOError:
            pass
