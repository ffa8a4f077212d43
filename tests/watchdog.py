"""Finds what keeps an event loop from answering: who holds it longer than it may, and where.

A thread looks whether the loop has answered lately. Time in which the loop's thread could have
run but another had the processor does not count: a busy machine is nobody's fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

MOST = 0.05
"""Seconds for which a loop may be held."""

LOOKS = 0.01
"""Seconds from one look to the next."""


def _is_ours(frame: FrameType) -> bool:
    """Whether a thread is in code of ours, or in what that waits for.

    asyncio's own may wait for its turn with the interpreter, or for a child that it forks.
    """
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_stack(frame)]
    inner = next((name for name in names if name.split(".")[0] in ("asyncio", "retrograde")), "")
    return inner.startswith("retrograde.")


class Watchdog:
    """Watches the running loop while the context lasts; `held` says where ours held it."""

    def __init__(self) -> None:
        self.held: list[tuple[float, str]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._delays = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._took: float | None = None
        self._ended = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the loop of this thread."""
        watching = threading.Thread(target=self._watch)
        watching.start()
        try:
            yield
        finally:
            self._ended.set()
            watching.join()

    def _now(self) -> float:
        """Return the time without that in which the loop's thread waited for a processor.

        To be asked by that thread: what it waits for now is counted once it runs again.
        """
        return time.monotonic() - int(self._delays.read_text().split()[1]) / 1e9

    def _answer(self, asked: float) -> None:
        self._took = self._now() - asked

    def _watch(self) -> None:
        while not self._ended.is_set():
            self._took, where = None, ""
            self._loop.call_soon_threadsafe(self._answer, self._now())
            while self._took is None and not self._ended.wait(LOOKS):
                frame = sys._current_frames().get(self._thread)
                if frame is not None and _is_ours(frame):
                    where = "".join(traceback.format_stack(frame)[-6:])
            if self._took is not None and self._took > MOST and where:
                self.held.append((self._took, where))
            self._ended.wait(LOOKS)
