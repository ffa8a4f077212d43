"""A replayer whose QEMU hangs, dies or is no longer wanted."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from retrograde.errors import PositionError, QemuDied, QemuTimeout
from retrograde.machine import replayer as module
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from tests import leftovers
from tests.conftest import Record

pytestmark = pytest.mark.qemu


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)


async def test_hung_qemu_is_given_up(
    recorded: Record, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.5)
    recording = recorded()
    async with await Replayer.start(recording, qemu) as replayer:

        def hang(_position: int) -> None:
            os.kill(replayer.process.pid, signal.SIGSTOP)

        with pytest.raises(QemuTimeout, match=r"query-replay within 0\.5 s"):
            await replayer.run_to(recording.end, progress=hang)
    assert leftovers.settled_qemus() == []


async def test_qemu_that_dies_is_named(recorded: Record, qemu: Qemu) -> None:
    recording = recorded()
    async with await Replayer.start(recording, qemu) as replayer:

        def kill(_position: int) -> None:
            os.kill(replayer.process.pid, signal.SIGKILL)

        with pytest.raises(QemuDied, match="was ended by SIGKILL"):
            await replayer.run_to(recording.end, progress=kill)


async def test_cancelled_replay_leaves_no_process(recorded: Record, qemu: Qemu) -> None:
    recording = recorded()
    runs = asyncio.Event()

    async def replay() -> None:
        async with await Replayer.start(recording, qemu) as replayer:
            await replayer.run_to(recording.end, progress=lambda _position: runs.set())

    task = asyncio.create_task(replay())
    await runs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers.settled_qemus() == []


async def test_beyond_the_end(recorded: Record, qemu: Qemu) -> None:
    recording = recorded()
    async with await Replayer.start(recording, qemu) as replayer:
        with pytest.raises(PositionError, match="The replay ended at"):
            await replayer.run_to(recording.end + 10_000_000)
