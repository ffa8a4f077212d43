"""The bridge: results, errors and Ctrl-C cross it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from retrograde import portal
from retrograde.errors import PositionError
from retrograde.portal import LoopThread


def test_results_and_errors_come_through():
    loop = LoopThread()

    async def fail():
        raise PositionError("no")

    assert loop.run(asyncio.sleep(0, 7)) == 7
    with pytest.raises(PositionError):
        loop.run(fail())
    loop.close()
    loop.close()
    assert loop.is_closed


def test_ctrl_c_cancels_the_work_waits_for_it_and_leaves_the_loop_usable(monkeypatch):
    loop = LoopThread()
    begun, log = threading.Event(), []

    async def work():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    class Interrupted(portal.concurrent.futures.Future):
        def result(self, timeout=None):
            begun.wait()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(portal.concurrent.futures, "Future", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(work())
    assert log == ["cleaned up"]
    assert loop.run(asyncio.sleep(0, 8)) == 8
    loop.close()
