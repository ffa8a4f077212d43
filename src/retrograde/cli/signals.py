"""SIGTERM and SIGHUP end a command as Ctrl-C does: everything is given back first.

Their own action would end us between two instructions, and nothing be cleaned up. A signal
that whoever started us had ignored (`nohup`) stays ignored. The first one counts: what is
being cleaned up is not disturbed by the next, and the last word is SIGKILL's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """We were told to end by a signal other than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"ended by {signal.Signals(number).name}")


def heed() -> None:
    """From now on, be told of the signals that would end us as an exception: Ended."""
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def heeded() -> list[signal.Signals]:
    """Return the signals that end a command: not those that are ignored."""
    return [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def number_of(error: BaseException) -> signal.Signals:
    """Return the signal that `error`, or what click made of it, stands for."""
    ended = error if isinstance(error, Ended) else error.__cause__
    return signal.Signals(ended.number) if isinstance(ended, Ended) else signal.SIGINT


def on_ending(act: Callable[[], object]) -> None:
    """Have the running event loop do `act` in place of what Ctrl-C and these signals do."""
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *heeded()):
        loop.add_signal_handler(number, act)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do `work` as asyncio.run does; a signal cancels it, and then Ended is raised."""
    import asyncio  # commands that need none answer at once

    told: list[int] = []

    async def cancellable() -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end(number: int) -> None:
            told.append(number)
            if task and len(told) == 1:
                task.cancel()

        for number in heeded():
            loop.add_signal_handler(number, end, number)
        return await work

    numbers = heeded()
    try:
        return asyncio.run(cancellable())
    except (Exception, asyncio.CancelledError):
        if told:
            raise Ended(told[0]) from None
        raise
    finally:
        for number in numbers:  # the loop has put their own action back
            signal.signal(number, _ignore if told else _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    for other in _ENDING:
        if signal.getsignal(other) is _raise:
            signal.signal(other, _ignore)
    raise Ended(number)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: we are ending already."""
