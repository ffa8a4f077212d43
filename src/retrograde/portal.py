"""The one bridge from code that waits to code that awaits: an event loop in a thread.

It works where a loop runs already, as in a notebook, and Ctrl-C ends what is under way.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from retrograde.errors import UsageError

Result = TypeVar("Result")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._last: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` to its end and return its result.

        What interrupts the waiting (KeyboardInterrupt) cancels `work`, waits until that
        has cleaned up, and goes on. Raises UsageError once it is closed.
        """
        if self.is_closed:
            work.close()
            raise UsageError("This was closed.", "Open the recording again.")
        outcome: concurrent.futures.Future[Result] = concurrent.futures.Future()
        tasks: list[asyncio.Task[Result]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(finish)

        def finish(task: asyncio.Task[Result]) -> None:
            if task.cancelled():
                outcome.set_exception(asyncio.CancelledError())
            elif error := task.exception():
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        self._loop.call_soon_threadsafe(begin)
        try:
            return outcome.result()
        finally:
            if not outcome.done():
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                concurrent.futures.wait([outcome])

    def close(self) -> None:
        """End the loop and its thread. Safe to repeat."""
        if not self.is_closed:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def leave(self, cleaning_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have `cleaning_up` done and go on; as `abandon`, for a garbage collector."""

        def begin() -> None:
            task = self._loop.create_task(cleaning_up())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

        if not self.is_closed:
            self._loop.call_soon_threadsafe(begin)

    def abandon(self, cleaning_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End once `cleaning_up` is done, and do not wait for that.

        For a garbage collector, which calls from any thread, that of the loop too.
        """

        async def last() -> None:
            try:
                await asyncio.gather(*self._leaving, return_exceptions=True)
                await cleaning_up()
            finally:
                self._loop.stop()

        def begin() -> None:
            self._last = self._loop.create_task(last())

        if not self.is_closed:
            self._loop.call_soon_threadsafe(begin)
