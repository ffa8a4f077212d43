"""Replayers that several cursors and searches share: each is lent to one borrower at a time.

Who holds a replayer must not wait for another: that is what keeps borrowers from waiting for
each other for ever. Long work borrows anew for each piece, so that others get their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from retrograde.timeline.seat import Seat

Result = TypeVar("Result")


class _Waiting(NamedTuple):
    """A borrower in the queue, and the replayers any of which will do."""

    among: Sequence[Seat]
    lent: asyncio.Future[Seat]


class Pool:
    """Replayers, which start when they are first used. Ended by `close`."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self.seats = tuple(seats)
        self._idle = set(self.seats)
        self._queue: deque[_Waiting] = deque()
        self._pairs = 0

    def pair(self) -> tuple[Seat, Seat]:
        """Return which replayers one more cursor is to park at positions and fill windows with.

        They are two where there are two; cursors take turns with them.
        """
        first, count = self._pairs, len(self.seats)
        self._pairs += 1
        return self.seats[first % count], self.seats[(first - 1) % count]

    @contextlib.asynccontextmanager
    async def borrow(self, among: Sequence[Seat] = ()) -> AsyncIterator[Seat]:
        """Have one of the replayers for oneself: the first of `among`, or all, that is idle.

        Where none is, the first that is given back; who has waited longest comes first.
        """
        seat = await self._take(among or self.seats[::-1])
        try:
            yield seat
        finally:
            self._give_back(seat)

    async def work(
        self, work: Callable[[Seat], Awaitable[Result]], among: Sequence[Seat] = ()
    ) -> Result:
        """Return what `work` comes to with a borrowed replayer; done anew when QEMU dies.

        `work` must begin with `go` (Seat.surviving).
        """
        async with self.borrow(among) as seat:
            return await seat.surviving(lambda: work(seat))

    async def close(self) -> None:
        """End the processes, and give back their probes' memory. Safe to repeat."""
        await end(self.seats)

    async def _take(self, among: Sequence[Seat]) -> Seat:
        for seat in among:
            if seat in self._idle:  # so nobody waits for it
                self._idle.remove(seat)
                return seat
        waiting = _Waiting(among, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        try:
            return await waiting.lent
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            elif not waiting.lent.cancelled():
                self._give_back(waiting.lent.result())
            raise

    def _give_back(self, seat: Seat) -> None:
        for waiting in self._queue:
            if seat in waiting.among and not waiting.lent.done():
                self._queue.remove(waiting)
                waiting.lent.set_result(seat)
                return
        self._idle.add(seat)


async def end(seats: Sequence[Seat]) -> None:
    """End the processes of `seats`, and give back their probes' memory."""
    for seat in seats:
        await seat.close()
        if seat.probe:
            seat.probe.close()
