"""Several processors, recorded and replayed on real QEMU, with all that could go wrong."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from retrograde.errors import AnswerNo, EnvironmentLacks, QemuError, UsageError
from retrograde.guests.builtin import builtin_guest, processors_guest
from retrograde.machine import replayer
from retrograde.machine.qemu import Qemu
from retrograde.machine.recorder import record
from retrograde.machine.scheduling import Policy, must_take_processors, require_scheduler
from retrograde.recording.bundle import LOG, SCHEDULE, Recording, digests, write_manifest
from retrograde.recording.schedule import encode_schedule
from retrograde.verify.processors import ProcessorsResult, compare_processors
from tests.command import assert_error, retrograde
from tests.conftest import find_qemu
from tests.guests import sums

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def scheduled(qemu: Qemu) -> Qemu:
    """QEMU for x86_64, where it takes the scheduler."""
    try:
        require_scheduler(qemu.path)
    except EnvironmentLacks as error:
        pytest.skip(f"{error.what} {error.detail}")
    return qemu


def _recorded(place: Path, vcpus: int, board: str, policy: Policy | None = None) -> Recording:
    guest = processors_guest(vcpus, board)
    name = place / f"{board}{vcpus}.retro"
    return asyncio.run(record(name, list(guest.qemu_args), policy=policy, shift=7))


@pytest.fixture(scope="module")
def two(scheduled: Qemu, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Two processors that take turns in order."""
    return _recorded(tmp_path_factory.mktemp("two"), 2, "pc")


def _compared(recording: Recording, qemu: Qemu, count: int) -> ProcessorsResult:
    return asyncio.run(
        compare_processors(
            recording, qemu, count=count, seed=count, can_load=True, report=lambda _text: None
        )
    )


def test_two_in_order(two: Recording, scheduled: Qemu) -> None:
    console = two.console_bytes().decode()
    assert f"SMP-SUM {sums.smp(2):016x}" in console
    result = _compared(two, scheduled, 24)
    assert result.positions == 24
    assert result.after_load == 11
    assert result.in_place
    assert result.changes > 100


def test_four_drawn(scheduled: Qemu, tmp_path: Path) -> None:
    recording = _recorded(tmp_path, 4, "q35", Policy(seed=7))
    assert f"SMP-SUM {sums.smp(4):016x}" in recording.console_bytes().decode()
    assert _compared(recording, scheduled, 12).changes > 1000


def test_eight(scheduled: Qemu, tmp_path: Path) -> None:
    recording = _recorded(tmp_path, 8, "pc")
    assert f"SMP-SUM {sums.smp(8):016x}" in recording.console_bytes().decode()
    assert retrograde("replay", recording.path).status == 0


def test_a_change_takes_few_bytes(two: Recording) -> None:
    changes = len(two.schedule().offset)
    assert (two.path / SCHEDULE).stat().st_size < 4 * changes


def test_verify_says_what_it_compared(two: Recording) -> None:
    done = retrograde("verify", two.path, "--random", "3", "--seed", "1")
    assert done.status == 0, done.stderr
    assert "registers of all processors and RAM at 3 positions" in done.stdout.decode()


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("debug", []),
        ("serve", ["--gdb", "127.0.0.1:0"]),
        ("index", ["--jobs", "1"]),
        ("last-write", ["0x200000"]),
        ("origin", ["rax"]),
        ("screen", ["-o", "x.png"]),
    ],
)
def test_what_knows_one_processor_only_is_refused(
    two: Recording, command: str, more: list[str], tmp_path: Path
) -> None:
    done = retrograde(command, two.path, *more, cwd=tmp_path)
    assert_error(done, 2, "2 processors", "walked through", "replay")


def _with_schedule(recording: Recording, place: Path, content: bytes) -> Recording:
    """Return a copy with another schedule, of which the manifest knows."""
    shutil.copytree(recording.path, place, symlinks=True)
    (place / SCHEDULE).write_bytes(content)
    manifest = recording.manifest
    files = digests(place, manifest.own_files())
    write_manifest(place, msgspec.structs.replace(manifest, files=files))
    return Recording.open(place)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content[:-1] + bytes([content[-1] | 0x80]), "cut off"),
        (lambda content: b"", "not one of 2"),
        (lambda content: content[:9] + b"\x04" + content[10:], "not one of 2"),
        (lambda content: content + bytes(1), "at one place"),
        (lambda content: content[:10] + b"\x81\x01" + content[10:], "does not belong"),
    ],
    ids=["cut", "empty", "of others", "at one place", "of another log"],
)
def test_a_bad_schedule_is_told(two, damage, why, tmp_path) -> None:
    content = (two.path / SCHEDULE).read_bytes()
    bad = _with_schedule(two, tmp_path / "bad.retro", damage(content))
    assert_error(retrograde("verify", bad.path, "--random", "1"), 2, "schedule.log", why)


def test_a_schedule_that_was_changed_is_found_by_its_digest(two: Recording, tmp_path: Path) -> None:
    bad = tmp_path / "bad.retro"
    shutil.copytree(two.path, bad, symlinks=True)
    with (bad / SCHEDULE).open("ab") as file:
        file.write(b"\x7f")
    assert_error(retrograde("verify", bad), 2, "schedule.log", "not what was recorded")


def test_without_its_schedule_it_does_not_open(two: Recording, tmp_path: Path) -> None:
    bad = tmp_path / "bad.retro"
    shutil.copytree(two.path, bad, symlinks=True)
    (bad / SCHEDULE).unlink()
    assert_error(retrograde("replay", bad), 2, "no schedule.log")


def test_another_order_is_noticed(
    two: Recording, scheduled: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared depends on the schedule: without its last third it does not replay."""
    monkeypatch.setattr(replayer, "STALL_SECONDS", 3.0)
    schedule = two.schedule()
    kept = len(schedule.offset) * 2 // 3
    pairs = zip(schedule.offset[:kept].tolist(), schedule.vcpu[:kept].tolist(), strict=True)
    other = _with_schedule(two, tmp_path / "other.retro", encode_schedule(2, pairs))
    with pytest.raises((AnswerNo, QemuError)):
        _compared(other, scheduled, 4)


def test_boards_without_room_are_refused(scheduled: Qemu) -> None:
    boards = {board.name: board for board in scheduled.machine_types}
    with pytest.raises(UsageError, match="cannot be added as devices"):
        must_take_processors(scheduled, boards["microvm"], 2)
    (pc,) = (board for board in boards.values() if board.alias == "pc")
    with pytest.raises(UsageError, match=f"takes {pc.most_vcpus} processors"):
        must_take_processors(scheduled, pc, pc.most_vcpus + 1)


def test_a_qemu_that_is_not_made_for_it_is_refused() -> None:
    """That for another target exports none of x86's functions."""
    other = find_qemu("aarch64")
    with pytest.raises(EnvironmentLacks, match="several processors in turns") as refused:
        require_scheduler(other.path)
    assert "does not export what it needs" in refused.value.detail


def test_one_processor_has_no_scheduler(scheduled: Qemu, tmp_path: Path) -> None:
    arguments = [*builtin_guest("tiny").qemu_args, "-smp", "1"]
    recording = asyncio.run(record(tmp_path / "x.retro", arguments))
    assert recording.manifest.format == 1
    assert b"scheduler" not in (recording.path / "manifest.json").read_bytes()
    assert not (recording.path / SCHEDULE).exists()
    assert (recording.path / LOG).exists()
    with pytest.raises(UsageError, match="needs no schedule"):
        asyncio.run(record(tmp_path / "y.retro", arguments, policy=Policy()))
