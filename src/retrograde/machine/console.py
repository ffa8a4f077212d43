"""The guest's console while it runs: a pipe we drain, so a chatty guest never blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Self

Sink = Callable[[bytes], object]


class ConsolePipe:
    """A pipe QEMU writes the console into; everything read goes to `sink`.

    An async context manager: leaving it reads what is left. `write_fd` is for QEMU. When
    `sink` fails (nobody reads any more), what runs inside is cancelled and leaving it
    raises the sink's error.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._task: asyncio.Task[object] | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        asyncio.get_running_loop().add_reader(self._read_fd, self._drain_or_cancel)
        return self

    async def __aexit__(self, *unused: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read_fd)
        os.close(self.write_fd)
        try:
            if self._failure:
                raise self._failure
            self._drain()
        finally:
            os.close(self._read_fd)

    def _drain_or_cancel(self) -> None:
        try:
            self._drain()
        except Exception as error:  # an error in here would only be logged by the loop
            asyncio.get_running_loop().remove_reader(self._read_fd)
            self._failure = error
            if self._task:
                self._task.cancel()

    def _drain(self) -> None:
        try:
            while data := os.read(self._read_fd, 1 << 16):
                self._sink(data)
        except BlockingIOError:
            pass
