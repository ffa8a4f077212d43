"""The timeline when QEMU dies, users change their minds, disks fill up and caches are bad."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks, PositionError, QemuRefused, UsageError
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline import storefiles as stores
from retrograde.timeline.pages import PageStore
from retrograde.timeline.proof import prove_checkpoints
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import origin_of
from retrograde.timeline.survey import survey
from retrograde.timeline.timeline import Timeline
from tests.damage import document, repeat_sums, rewrite, spoil

pytestmark = pytest.mark.qemu


@pytest.fixture
def recording(copied):
    return Recording.open(copied("tiny"))


async def truth(recording, positions):
    """What an undisturbed timeline shows."""
    async with await Timeline.open(recording) as timeline:
        return {position: await look(timeline, position) for position in positions}


async def look(timeline, position):
    await timeline.seek(position)
    return await timeline.packet(), await timeline.digest()


def some_positions(recording, count=5, seed=1):
    dice = random.Random(seed)
    return [dice.randrange(recording.end) for _ in range(count)]


async def test_a_killed_qemu_is_replaced_and_the_answer_is_right(recording):
    positions = some_positions(recording)
    expected = await truth(recording, positions)
    async with await Timeline.open(recording) as timeline:
        for number, position in enumerate(positions):
            seat = timeline.history.pool.seats[number % 2]
            # Killed while it is on its way there, not only before.
            seeking = asyncio.create_task(look(timeline, position))
            for _ in range(4 * number):
                await asyncio.sleep(0)
            os.kill(seat.pid, signal.SIGKILL)
            assert await seeking == expected[position]
            await timeline.step_back(min(position, 3))
            assert timeline.position == max(0, position - 3)


async def test_a_checkpoint_is_not_blamed_for_qemus_that_somebody_kills(recording, monkeypatch):
    load, kills = Replayer.load, []

    async def killed(self, snapshot):
        if snapshot.position and len(kills) < 2:
            kills.append(snapshot.position)
            os.kill(self.pid, signal.SIGKILL)
        await load(self, snapshot)

    position = recording.end // 2
    expected = await truth(recording, [position])
    async with await Timeline.open(recording) as timeline:
        checkpoints = list(timeline.store.checkpoints)
        monkeypatch.setattr(Replayer, "load", killed)
        assert await look(timeline, position) == expected[position]
        assert kills[0] == kills[1]
        assert list(timeline.store.checkpoints) == checkpoints


async def test_images_are_not_blamed_for_a_qemu_killed_as_it_starts(recording, monkeypatch):
    announce, kills = Replayer._announce_nothing, []
    position = recording.end // 2
    expected = await truth(recording, [position])

    async def killed(self):
        kills.append(self.pid)
        if len(kills) == 2:  # the one that replaces the first
            os.kill(self.pid, signal.SIGKILL)
        await announce(self)

    monkeypatch.setattr(Replayer, "_announce_nothing", killed)
    async with await Timeline.open(recording, replayers=1) as timeline:
        checkpoints = list(timeline.store.checkpoints)
        os.kill(timeline.history.pool.seats[0].pid, signal.SIGKILL)
        assert await look(timeline, position) == expected[position]
        assert len(kills) == 3
        assert list(timeline.store.checkpoints) == checkpoints


@pytest.mark.parametrize("turns", (1, 2, 3, 4, 6, 8, 12, 20))
async def test_a_replacement_cancelled_at_any_moment_leaves_nothing(recording, turns):
    async with await Timeline.open(recording, replayers=1) as timeline:
        seat = timeline.history.pool.seats[0]
        with pytest.raises(ValueError), seat.unsettled():
            raise ValueError
        seeking = asyncio.create_task(timeline.seek(recording.end // 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        seeking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await seeking
    # What was under way is no task that dies with the event loop, its QEMU alive.
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_qemu_killed_during_a_search_is_replaced(recording, probe):
    async with await Timeline.open(recording, at="90%") as timeline:
        stack = (await timeline.registers())["rsp"]
        expected = await timeline.last_store(stack, 8)
        searching = asyncio.create_task(timeline.last_store(stack, 8))
        for _ in range(10):
            await asyncio.sleep(0)
        for seat in timeline.history.pool.seats:
            if seat._replayer is not None:  # one may be starting anew already
                os.kill(seat.pid, signal.SIGKILL)
        assert await searching == expected


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_cancelled_wherever_all_is_right_afterwards(recording, probe, seed):
    dice = random.Random(seed)
    positions = some_positions(recording, seed=seed)
    expected = await truth(recording, positions)
    async with await Timeline.open(recording) as timeline:
        stack = (await timeline.registers())["rsp"]
        for position in positions:
            operation = dice.choice(
                (
                    lambda position=position: look(timeline, position),
                    lambda: timeline.step_back(min(timeline.position, 700)),
                    lambda: timeline.step(min(timeline.end - timeline.position, 700)),
                    lambda: timeline.last_store(stack, 8),
                    lambda: timeline.read(stack, 64),
                    lambda: timeline.read(0xFEE00000, 4, "physical"),
                )
            )
            task = asyncio.create_task(operation())
            for _ in range(dice.randrange(300)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, QemuRefused):
                await task
            assert await look(timeline, position) == expected[position]


async def test_two_processes_open_one_recording_at_once(recording):
    script = (
        "import sys\n"
        "from retrograde.timeline.sync import open_timeline\n"
        "with open_timeline(sys.argv[1], at='50%') as timeline:\n"
        "    print(timeline.position, timeline.packet().decode(), timeline.digest())\n"
    )
    both = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, recording.path, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outputs = [(await process.communicate())[0] for process in both]
    packet, digest = (await truth(recording, [recording.end // 2]))[recording.end // 2]
    assert outputs[0] == outputs[1] == f"{recording.end // 2} {packet.decode()} {digest}\n".encode()
    assert [path.name for path in recording.cache.iterdir()] == [stores.FOLDER]


@pytest.mark.parametrize("damage", ["other recording", "other qemu", "cut pages", "cut index"])
async def test_a_cache_that_does_not_fit_is_made_anew(recording, qemu, damage):
    positions = some_positions(recording, 2)
    expected = await truth(recording, positions)
    folder = recording.cache / stores.FOLDER
    origin = document(folder / stores.INDEX)["origin"]
    if damage == "other recording":
        rewrite(folder / stores.INDEX, origin=origin | {"log_sha256": "0" * 64})
    if damage == "other qemu":
        rewrite(folder / stores.INDEX, origin=origin | {"qemu_sha256": "0" * 64})
    if damage == "cut pages":
        os.truncate(folder / stores.PAGES, 8192)
    if damage == "cut index":
        spoil(folder / stores.INDEX, b"{")
    assert CheckpointStore.open(recording, origin_of(recording, qemu)) is None
    assert await truth(recording, positions) == expected
    assert CheckpointStore.open(recording, origin_of(recording, qemu)) is not None


async def test_a_checkpoint_that_loads_wrong_is_dropped(recording, qemu, caplog):
    position = recording.end - 1  # no checkpoint lies behind it
    expected = await truth(recording, [position])
    folder = recording.cache / stores.FOLDER
    checkpoints = document(folder / stores.INDEX)["checkpoints"]
    last = checkpoints[-1]
    last["registers"] = last["registers"].replace("0", "1", 1)
    rewrite(folder / stores.INDEX, checkpoints=checkpoints)
    assert await truth(recording, [position]) == expected
    assert f"checkpoint at {last['position']}" in caplog.text


async def test_proof_drops_the_checkpoint_that_leads_astray(recording, qemu):
    store = await survey(recording, qemu)
    whole = await prove_checkpoints(recording, qemu)
    assert (whole.dropped, whole.checkpoints) == ([], len(store.checkpoints))
    assert whole.comparisons >= whole.checkpoints
    victim = store.checkpoints[-1]
    table = store.table(victim)
    slot = int(table[table != 0][5])
    with (store.folder.path / stores.PAGES).open("r+b") as pages:
        pages.seek(4096 * slot)
        pages.write(os.urandom(4096))
    repeat_sums(store.folder.path)  # as if it had been stored so
    store.close()
    damaged = await prove_checkpoints(recording, qemu)
    assert victim.position in damaged.dropped
    again = CheckpointStore.open(recording, origin_of(recording, qemu))
    assert again.index.proven
    assert victim.position not in [one.position for one in again.checkpoints]


async def test_a_disk_that_fills_up_ends_the_saving_not_the_work(recording, qemu, monkeypatch):
    expected = await truth(recording, [recording.end // 2])
    shutil.rmtree(recording.cache)
    put, puts = PageStore.put, []

    def full_at_the_second(self, *arguments):
        puts.append(1)
        if len(puts) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, *arguments)

    monkeypatch.setattr(PageStore, "put", full_at_the_second)
    assert await truth(recording, [recording.end // 2]) == expected
    kept = CheckpointStore.open(recording, origin_of(recording, qemu)).checkpoints
    assert [one.position for one in kept] == [0]


async def test_no_room_at_all_is_said_plainly(recording, monkeypatch):
    def full(_fd, _offset, _length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EnvironmentLacks, match="No space left"):
        await Timeline.open(recording)


async def test_what_a_crashed_process_left_is_swept(recording):
    recording.cache.mkdir(exist_ok=True)
    left = recording.cache / f"{stores.FOLDER}.0crashed"
    left.mkdir()
    (left / stores.PAGES).write_bytes(b"x" * 4096)
    await truth(recording, [0])
    assert [path.name for path in recording.cache.iterdir()] == [stores.FOLDER]


async def test_a_recording_that_cannot_be_written_keeps_its_cache(recording, tmp_path):
    expected = await truth(recording, [recording.end // 3])
    files = [recording.path, *Path(recording.path).rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert await truth(recording, [recording.end // 3]) == expected
    assert {path: path.stat().st_mtime_ns for path in files} == before


async def test_bad_input_is_refused_and_changes_nothing(recording):
    async with await Timeline.open(recording, at=1000) as timeline:
        for wrong in (timeline.seek(-1), timeline.seek(recording.end + 1), timeline.step(1 << 62)):
            with pytest.raises(PositionError):
                await wrong
        with pytest.raises(PositionError):
            await timeline.step_back(1001)
        for address, count in ((1 << 64, 1), ((1 << 64) - 4, 8), (0, 0), (-8, 8), (0, -1)):
            with pytest.raises(UsageError):
                timeline.add_watchpoint(address, count)
        with pytest.raises(UsageError, match="no register"):
            timeline.add_breakpoint(0x1000, "nonsense == 5")
        with pytest.raises(UsageError, match="past has happened"):
            timeline.write(0x1000, b"x")
        with pytest.raises(UsageError):
            timeline.remove(1)
        with pytest.raises(UsageError):
            await timeline.read((1 << 64) - 1, 2)
        assert timeline.position == 1000


async def test_a_watch_that_lies_in_no_memory_is_never_hit(recording, probe):
    async with await Timeline.open(recording, at="end-1000") as timeline:
        assert await timeline.last_store(0x123456789ABC, 8) is None
        timeline.add_watchpoint(0x1 << 40, 64, "rw", "physical")
        assert await timeline.run_back() is None
        assert timeline.position == 0


async def test_a_condition_on_memory_that_is_not_there_does_not_hold(recording, probe):
    async with await Timeline.open(recording, at="60%") as timeline:
        pc = await timeline.pc()
        number = timeline.add_breakpoint(pc, "[0x7fffdeadbeef0000]:8 >= 0")
        assert await timeline.hits(timeline.position - 100, timeline.position + 100) == []
        timeline.remove(number)
        timeline.add_breakpoint(pc, "[0x100000]:1 >= 0")
        hits = await timeline.hits(timeline.position - 100, timeline.position + 100)
        assert timeline.position in [hit.position for hit in hits]


async def test_a_timeline_gives_back_its_descriptors(recording):
    async def open_files():
        async with await Timeline.open(recording) as timeline:
            await timeline.seek(recording.end // 2)
        gc.collect()  # what is mapped holds a descriptor until then
        return len(list(Path("/proc/self/fd").iterdir()))

    before = await open_files()
    assert await open_files() <= before
