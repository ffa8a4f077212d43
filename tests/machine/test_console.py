"""The pipe a replay's console comes through."""

from __future__ import annotations

import asyncio
import os

import pytest

from retrograde.machine.console import ConsolePipe


async def test_everything_arrives_in_order() -> None:
    seen = bytearray()
    async with ConsolePipe(seen.extend) as pipe:
        os.write(pipe.write_fd, b"a" * 40_000)
        await asyncio.sleep(0)
        os.write(pipe.write_fd, b"the end")
    assert seen == b"a" * 40_000 + b"the end"


async def test_a_sink_that_fails_ends_what_runs() -> None:
    def sink(_data: bytes) -> None:
        raise BrokenPipeError

    reached = False
    with pytest.raises(BrokenPipeError):
        async with ConsolePipe(sink) as pipe:
            os.write(pipe.write_fd, b"x")
            await asyncio.Event().wait()
            reached = True
    assert not reached


async def test_a_sink_that_fails_at_the_last_byte() -> None:
    def sink(_data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        async with ConsolePipe(sink) as pipe:
            os.write(pipe.write_fd, b"x")
