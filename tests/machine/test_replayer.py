"""One replayer on real QEMU: forward by running, backward by loading."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from retrograde.errors import InternalError, QemuDied
from retrograde.machine import quirks
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import LATE_TIMER
from retrograde.machine.ram import GuestRam
from retrograde.machine.recorder import record
from retrograde.machine.replayer import Replayer
from retrograde.machine.snapshot import Snapshot
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Clock, Kind
from tests.conftest import Record
from tests.machine.bootdisk import write_boot_disk

pytestmark = pytest.mark.qemu


@pytest.fixture
def recording(recorded: Record) -> Recording:
    return recorded("tiny")


async def state(replayer: Replayer) -> tuple[int, str, bytes]:
    gdb = await replayer.gdb()
    return replayer.position, replayer.ram.digest(), await gdb.read_registers()


async def test_a_position_is_the_same_after_going_back(recording: Recording, qemu: Qemu) -> None:
    middle, later = recording.end // 2, recording.end // 2 + 123_456
    async with await Replayer.start(recording, qemu) as replayer:
        await replayer.run_to(middle)
        at_middle = await state(replayer)
        await replayer.save("here")
        ram = bytes(replayer.ram.view())
        await replayer.run_to(later)
        at_later = await state(replayer)
        assert at_later != at_middle

        def fill(target: GuestRam) -> None:
            target.view()[:] = ram

        await replayer.load(Snapshot("here", middle, fill))
        assert await state(replayer) == at_middle
        await replayer.run_to(later)
        assert await state(replayer) == at_later


async def test_a_clock_that_is_due_at_the_start(tmp_path: Path, qemu: Qemu) -> None:
    """As where the host was busy while the snapshot of position 0 was made."""
    disk = write_boot_disk(tmp_path / "disk.img")
    drive = f"file={disk},if=floppy,format=raw"
    recording = await record(tmp_path / "a.retro", ["-m", "2", "-drive", drive])
    clocks = recording.log().events({Kind.CLOCK_HOST}, stop_position=1)
    *_, last = (event for event in clocks if isinstance(event, Clock))
    data = bytearray(recording.log_path.read_bytes())
    later = last.nanoseconds + 3 * 10**9
    data[last.offset + 1 : last.offset + 9] = later.to_bytes(8)
    recording.log_path.write_bytes(data)
    async with await Replayer.start(recording, qemu) as replayer:
        assert replayer.position == 0
        assert await replayer.is_quiet()


async def test_timers_stay_quiet_on_the_way_back(recorded: Record, qemu: Qemu) -> None:
    """Where going back loads position 0 first, and where it need not (docs/quirks.md)."""
    recording = recorded("apic")
    early, late = recording.end * 3 // 5, recording.end * 4 // 5
    async with await Replayer.start(recording, qemu) as replayer:
        rams, states = {}, {}
        for position in (early, late):
            await replayer.run_to(position)
            await replayer.save(f"at{position}")
            rams[position], states[position] = bytes(replayer.ram.view()), await state(replayer)

        async def load(position: int) -> None:
            def fill(target: GuestRam) -> None:
                target.view()[:] = rams[position]

            await replayer.load(Snapshot(f"at{position}", position, fill))
            assert await state(replayer) == states[position]

        for _ in range(3):
            await load(late)
            await load(early)
            interrupts = await replayer.monitor.human("info lapic")
            assert "IRR\t (none)" in interrupts
            await replayer.run_to(late)
            assert await state(replayer) == states[late]


async def test_every_way_back_can_lead_through_the_start(
    recorded: Record, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = dataclasses.replace(LATE_TIMER, since=())
    others = [one for one in quirks.QUIRKS if one != LATE_TIMER]
    monkeypatch.setattr(quirks, "QUIRKS", (*others, always))
    await test_timers_stay_quiet_on_the_way_back(recorded, qemu)


async def test_running_to_where_it_stands_is_not_lost(recording: Recording, qemu: Qemu) -> None:
    async with await Replayer.start(recording, qemu) as replayer:
        await replayer.run_to(1000)
        await replayer.run_to(1000)
        assert replayer.position == 1000
        with pytest.raises(InternalError):
            await replayer.run_to(999)


async def test_ram_without_content_takes_no_memory(recording: Recording, qemu: Qemu) -> None:
    async with await Replayer.start(recording, qemu) as replayer:
        assert replayer.ram.present().sum() < 8  # of 32 MiB
        await replayer.run_to(recording.end // 2)
        assert 1 < replayer.ram.present().sum() < 16


def test_only_zeros_are_released() -> None:
    ram = GuestRam(5 << 20)
    ram.view()[3 << 20] = 7
    assert not any(ram.view()[: 2 << 20])  # looked at, and so allocated
    assert ram.present().tolist() == [True, True, False, True, False]
    ram.release_zeros()
    assert ram.present().tolist() == [False, False, False, True, False]
    assert ram.view()[3 << 20] == 7
    ram.close()


async def test_no_network_card_will_announce_itself(recording: Recording, qemu: Qemu) -> None:
    # With QEMU's default of 5 rounds an active virtio-net card arms a timer when it is
    # loaded, and the replay stalls at once (docs/quirks.md).
    async with await Replayer.start(recording, qemu) as replayer:
        parameters = await replayer.monitor.execute("query-migrate-parameters")
        assert parameters["announce-rounds"] == 0


async def test_a_start_cancelled_at_its_end_leaves_nothing(
    recording: Recording, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, processes = asyncio.Event(), []

    async def stay(self: Replayer) -> int:
        processes.append(self.process)
        connected.set()
        return await asyncio.Future()

    monkeypatch.setattr(Replayer, "ask_position", stay)
    before = asyncio.all_tasks()
    start = asyncio.create_task(Replayer.start(recording, qemu))
    await connected.wait()
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    assert processes[0].returncode is not None
    assert asyncio.all_tasks() == before


async def test_a_cancelled_run_is_known_to_be_lost(recording: Recording, qemu: Qemu) -> None:
    async with await Replayer.start(recording, qemu) as replayer:
        run = asyncio.create_task(replayer.run_to(recording.end))
        await asyncio.sleep(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert replayer.lost


async def test_qemu_killed_while_it_runs(recording: Recording, qemu: Qemu) -> None:
    async with await Replayer.start(recording, qemu) as replayer:
        run = asyncio.create_task(replayer.run_to(recording.end))
        await asyncio.sleep(0)
        await replayer.process.kill()
        with pytest.raises(QemuDied, match="SIGKILL"):
            await run
