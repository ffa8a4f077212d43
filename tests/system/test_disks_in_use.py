"""A guest whose disks are never idle: every position, from everywhere, as one pass shows it."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from retrograde.guests.builtin import builtin_guest
from retrograde.machine.compat import qemu_for
from retrograde.machine.quiet import RequestsInFlight
from retrograde.machine.replayer import Replayer
from retrograde.machine.snapshot import Snapshot
from retrograde.recording.bundle import Recording
from retrograde.timeline import survey
from retrograde.timeline.digest import ram_digest
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.proof import prove_checkpoints
from retrograde.timeline.timeline import Timeline
from tests.command import retrograde

pytestmark = pytest.mark.qemu

BUFFERS = 0x41_0000
"""Where the guest has its first disk's data put (guests/x86_64/disks.S)."""


@pytest.fixture
def recording(copied):
    return Recording.open(copied("disks"))


def written(tmp_path, disk_format):
    """Record the guest with a disk that it may write, too."""
    guest = builtin_guest("disks")
    image = tmp_path / f"disk.{disk_format}"
    raw = tmp_path / "raw"
    raw.write_bytes(random.Random(1).randbytes(1 << 20))
    command = ["qemu-img", "convert", "-f", "raw", "-O", disk_format, raw, image]
    subprocess.run(command, check=True)
    words = guest.qemu_args
    at = words.index("-drive")
    words[at + 1] = f"if=virtio,format={disk_format},file={image}"
    output = tmp_path / "written.retro"
    retrograde("record", "-o", output, "--", *words)
    return Recording.open(output)


def around_completions(recording, count, seed):
    """Positions around requests that are done, each of one state, in no order."""
    facts, dice = LogFacts.read(recording.log()), random.Random(seed)
    chosen: set[int] = set()
    while len(chosen) < count:
        near = dice.choice([3, 40, 500, 5000])
        at = int(dice.choice(facts.completions)) + dice.randrange(-near, near)
        at = facts.clear_from(max(0, at))
        if at < recording.end:
            chosen.add(at)
    return dice.sample(sorted(chosen), count)


async def truth(recording, positions):
    """What one pass that loads nothing shows."""
    seen = {}
    async with await Replayer.start(recording, qemu_for(recording)) as replayer:
        gdb = await replayer.gdb()
        for position in sorted(positions):
            await replayer.run_to(position)
            seen[position] = await gdb.read_registers(), ram_digest(replayer.ram.array())
    return seen


async def shown(recording, positions, seed):
    """What a timeline shows, sought and reached by steps in both directions."""
    seen, dice = {}, random.Random(seed)
    async with await Timeline.open(recording) as timeline:
        for position in positions:
            await timeline.seek(position)
            for steps in (0, -dice.randrange(1, 40), dice.randrange(1, 40)):
                target = min(max(0, timeline.position + steps), recording.end)
                if steps < 0:
                    await timeline.step_back(timeline.position - target)
                else:
                    await timeline.step(target - timeline.position)
                if target < recording.end and not timeline.facts.is_delivery(target):
                    seen[target] = await timeline.packet(), await timeline.digest()
    return seen


async def busy_position(replayer, facts):
    """Run to a position with a request in flight and return it."""
    for completion in facts.completions[len(facts.completions) // 2 :].tolist():
        before = facts.clear_before(completion)
        if before > replayer.position:
            await replayer.run_to(before)
            if not await replayer.is_quiet():
                return before
    raise AssertionError("no request of this guest is ever in flight")


@pytest.mark.parametrize("seed", (1, 2))
async def test_every_position_is_what_one_pass_shows(recording, seed):
    positions = around_completions(recording, 40, seed)
    seen = await shown(recording, positions, seed)
    assert seen == await truth(recording, seen)


@pytest.mark.parametrize("disk_format", ("raw", "qcow2"))
async def test_so_it_is_where_the_guest_writes(qemu, tmp_path, disk_format):
    recording = written(tmp_path, disk_format)
    seen = await shown(recording, around_completions(recording, 25, 3), 3)
    assert seen == await truth(recording, seen)


async def test_checkpoints_stand_between_the_requests(recording, monkeypatch):
    async def run_for(replayer, _seconds, limit):
        await replayer.run_to(min(replayer.position + 100_000, limit))

    monkeypatch.setattr(Replayer, "run_for", run_for)
    first = int(LogFacts.read(recording.log()).completions[10])
    proof = await prove_checkpoints(recording, qemu_for(recording))
    assert proof.dropped == []
    async with await Timeline.open(recording) as timeline:
        assert sum(one.position > first for one in timeline.store.checkpoints) > 5


async def test_where_no_checkpoint_can_be_made_the_way_is_longer_and_right(recording, monkeypatch):
    async def never(_replayer, _facts, _end):
        return False

    monkeypatch.setattr(survey, "run_until_quiet", never)
    positions = around_completions(recording, 3, 4)
    seen = await shown(recording, positions, 4)
    assert seen == await truth(recording, seen)


async def test_nothing_is_saved_or_loaded_with_requests_in_flight(recording):
    facts = LogFacts.read(recording.log())
    async with await Replayer.start(recording, qemu_for(recording)) as replayer:
        start = facts.clear_from(1_000_000)
        await replayer.run_to(start)
        await replayer.save("before")
        ram = bytes(replayer.ram.view())
        busy = await busy_position(replayer, facts)
        held = bytes(replayer.ram.view())
        before = Snapshot("before", start, lambda target: target.view().__setitem__(..., ram))
        with pytest.raises(RequestsInFlight):
            await replayer.save("busy")
        with pytest.raises(RequestsInFlight):
            await replayer.load(before)
        assert replayer.position == busy and not replayer.lost
        assert bytes(replayer.ram.view()) == held
        later = facts.clear_from(busy + 10_000)
        await replayer.run_to(later)
        seen = {later: (await (await replayer.gdb()).read_registers(),)}
    assert seen[later][0] == (await truth(recording, [later]))[later][0]


async def test_a_mark_keeps_the_ram_alone(recording):
    async with await Timeline.open(recording, replayers=1) as timeline:
        seat = timeline.history.pool.seats[0]
        busy = await busy_position(seat._parked, timeline.facts)
        ram = bytes(seat.ram.view())
        image = await seat.mark()
        assert seat._marks == {} and seat.position == busy
        assert bytes(image.read(0, len(ram))) == ram


async def test_a_machine_that_may_not_run_on_is_replaced(recording, probe, monkeypatch):
    positions = around_completions(recording, 12, 5)
    monkeypatch.setattr("retrograde.machine.probe.probe.Probe.drop_code", lambda _probe: False)
    seen = await shown(recording, positions, 5)
    assert seen == await truth(recording, seen)


async def test_the_last_write_to_a_buffer_is_the_disks(copied, probe):
    path = copied("disks")
    recording = Recording.open(path)
    end = recording.end
    retrograde("index", path)
    answer = retrograde("last-write", path, f"{BUFFERS:#x}:8", "--at", end, "--json").json()
    assert answer["pc"] is None
    position = answer["position"]
    async with await Timeline.open(recording) as timeline:
        await timeline.seek(position)
        assert (await timeline.read(BUFFERS, 8)).hex() == answer["old"]
        await timeline.step()
        assert (await timeline.read(BUFFERS, 8)).hex() == answer["new"]


def test_verify_finds_no_difference(recording):
    done = retrograde("verify", "--random", 60, "--seed", 6, recording.path)
    assert done.status == 0, done.stderr


def test_gdb_goes_back_over_requests(recording):
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    completions = LogFacts.read(recording.log()).completions
    place = int(completions[len(completions) // 2])
    commands = ("reverse-stepi 100", "stepi 200", "retro when", "x/4gx 0x410000")
    words = [word for command in commands for word in ("-ex", command)]
    done = retrograde("debug", recording.path, "--at", place, "--", "-batch", *words)
    assert done.status == 0, done.stderr
    assert f"{place + 100:_}" in done.stdout.decode()
