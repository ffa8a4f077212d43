"""SIGTERM and SIGHUP end a command as Ctrl-C does: everything is given back first.

Their own action would end us between two instructions, and nothing be cleaned up. A signal
that whoever started us had ignored (`nohup`) stays ignored. The first one counts: what is
being cleaned up is not disturbed by the next, and the last word is SIGKILL's.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

_ENDING = (signal.SIGTERM, signal.SIGHUP)


LOST_SECONDS = 1.0
"""How long after a signal we look whether it has been lost."""

_told: list[int] = []
"""The signals of `_ENDING` that came."""


class Ended(KeyboardInterrupt):
    """We were told to end by a signal other than Ctrl-C's."""


def heed() -> None:
    """From now on, be told of the signals that would end us as an exception: Ended."""
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def heeded() -> list[signal.Signals]:
    """Return the signals that end a command: not those that are ignored."""
    return [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def leave() -> signal.Signals:
    """Be done with signals, and return the one that ended us."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    return signal.Signals(_told[0]) if _told else signal.SIGINT


def is_behind(error: Exception) -> bool:
    """Tell whether a signal is why `error` was raised.

    DuckDB makes an error of its own of what a signal's handler raises.
    """
    return bool(_told) or (type(error) is RuntimeError and str(error) == "Query interrupted")


def on_ending(act: Callable[[], object]) -> None:
    """Have the running event loop do `act` in place of what Ctrl-C and these signals do."""
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *heeded()):
        loop.add_signal_handler(number, act)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do `work` as asyncio.run does; a signal cancels it, and then Ended is raised."""
    import asyncio  # commands that need none answer at once

    async def cancellable() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end(number: int) -> None:
            _told.append(number)
            if task and len(_told) == 1:
                task.cancel()

        for number in heeded():
            loop.add_signal_handler(number, end, number)
        return await work

    numbers = heeded()
    try:
        with asyncio.Runner() as runner:
            return runner.run(cancellable())
    except (Exception, asyncio.CancelledError):
        if _told:
            raise Ended from None
        raise
    finally:
        work.close()  # where no loop could be made nobody has awaited it, and it would complain
        for number in numbers:  # the loop has put their own action back
            signal.signal(number, _ignore if _told else _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    for other in _ENDING:
        if signal.getsignal(other) is _raise:
            signal.signal(other, _ignore)
    _told.append(number)
    signal.signal(signal.SIGALRM, _again)
    signal.setitimer(signal.ITIMER_REAL, LOST_SECONDS, LOST_SECONDS)
    raise Ended


def _again(_number: int, _frame: FrameType | None) -> None:
    """Raise Ended again if it was lost: DuckDB at times drops what a handler raises.

    While it is on its way out, cleaning up as it goes, some exception is being handled.
    """
    if sys.exc_info()[1] is None:
        raise Ended


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: we are ending already."""
