"""Whatever is asked, the event loop goes on answering: nothing of ours waits on it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable

import pytest

from retrograde.index.tables.build import build
from retrograde.investigation.investigation import Investigation
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from tests.watchdog import Watchdog

pytestmark = pytest.mark.qemu


async def ask_all(recording: Recording, *, index: bool) -> None:
    async with Investigation(recording) as seen:
        async with await seen.timeline("50%") as timeline:
            await timeline.step_back(1500)
            for _ in range(50):
                await timeline.step_back()
            registers = await timeline.registers()
            await timeline.read(registers["rsp"], 64)
            await timeline.last_store(registers["rsp"], 8)
            await timeline.digest()
        if index:
            await build(recording)
        for _ in range(2):
            write = await seen.last_write(0x200100, 8, at="end")
            await seen.origin(0x200100, 8, at="end", most=5)
            assert write is not None
            await seen.name(write.pc or 0, write.position)
        (await seen.query("FROM interrupts")).all()


async def test_the_loop_is_never_held(copied: Callable[[str], object], probe: object) -> None:
    """From the first checkpoints to SQL, on a recording nothing is known of."""
    recording = Recording.open(str(copied("tiny")))
    await ask_all(recording, index=True)  # modules are imported
    shutil.rmtree(recording.cache)
    dog = Watchdog()
    with dog.watching():
        await ask_all(recording, index=True)
    assert not dog.held, "\n".join(f"{took:.3f} s\n{where}" for took, where in dog.held)


async def test_what_holds_it_is_seen(
    recorded: Callable[[str], Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(self: Replayer) -> int:
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the fault to be found
        return await ask(self)

    ask = Replayer.ask_position
    monkeypatch.setattr(Replayer, "ask_position", slowly)
    dog = Watchdog()
    with dog.watching():
        async with Investigation(recorded("tiny")) as seen:
            await seen.timeline("50%")
    assert dog.held
