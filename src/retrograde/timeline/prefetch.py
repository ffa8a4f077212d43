"""Filling windows in the background, before they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from retrograde.errors import RetrogradeError

IDLE_SECONDS = 0.05
"""A script that seeks on and on leaves no such pause, and a window filled beside its next
seek would take processor time from that; people leave longer ones."""

Fill = Callable[[int, int], Awaitable[None]]
"""Fill the window of positions from the first to the second, both included."""


class Prefetch:
    """One background task that fills the window wanted last.

    What runs is never cut short by a newer wish, because a replayer stopped half-way
    has to be started anew; the newest wish comes after it and replaces older ones.
    """

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._wanted: tuple[int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a window is being filled."""
        return self._task is not None and not self._task.done()

    def want(self, start: int, end: int) -> None:
        """Have the window of positions `start` to `end` filled when there is time."""
        self.forget()
        self._wanted = (start, end)
        self._begin()

    def want_when_idle(self, start: int, end: int) -> None:
        """Have it filled unless something else is wanted within IDLE_SECONDS."""
        self.forget()
        self._wanted = (start, end)
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._begin)

    def forget(self) -> None:
        """Drop what is wanted but not begun."""
        self._wanted = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def settle(self) -> None:
        """Wait until nothing is being filled; what is not begun is dropped."""
        self.forget()
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """End at once, leaving the replayer in the middle."""
        self.forget()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _begin(self) -> None:
        if not self.is_busy:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            # A window nobody asked for yet may fail in silence: asked for, it is tried
            # again, and then the error is the caller's.
            with contextlib.suppress(RetrogradeError):
                await self._fill(*wanted)
