"""Where a replay begins: at reset, or where recordings had one, at a snapshot made then."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import pytest

from retrograde.commandline.command import INITIAL, Launch, record_command
from retrograde.guests.builtin import builtin_guest
from retrograde.machine import recorder
from retrograde.machine.qemu import Qemu
from retrograde.machine.recorder import record
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import MANIFEST, Recording
from retrograde.recording.machinespec import MachineSpec
from retrograde.recording.manifest import encode_manifest
from retrograde.timeline.logfacts import LogFacts
from tests.conftest import Record, find_qemu

pytestmark = pytest.mark.qemu

State = tuple[int, str, bytes]

INVERTED = ("ppc64",)
"""Whose registers a load changes (ppc-msr), so that only those of a replay from reset are right."""


async def recorded_as_once(target: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Record tiny with a snapshot of position 0 that has RAM in it, as recordings once were."""

    def with_snapshot(spec: MachineSpec, launch: Launch) -> list[str]:
        return record_command(spec, dataclasses.replace(launch, snapshot=INITIAL))

    monkeypatch.setattr(recorder, "record_command", with_snapshot)
    made = await record(
        folder / "old.retro", builtin_guest("tiny", target).qemu_args, target=target
    )
    manifest = msgspec.structs.replace(made.manifest, snapshot=True)
    (made.path / MANIFEST).write_bytes(encode_manifest(manifest))
    return Recording.open(made.path)


async def states(recording: Recording, qemu: Qemu, places: list[int]) -> list[State]:
    """Return what the machine looks like at `places`."""
    seen = []
    async with await Replayer.start(recording, qemu) as replayer:
        for place in places:
            await replayer.run_to(place)
            registers = await (await replayer.gdb()).read_registers()
            seen.append((replayer.position, replayer.ram.digest(), registers))
    return seen


@pytest.mark.parametrize(
    "target", ["x86_64", "aarch64", "arm", "riscv64", "ppc64", "mips", "mips64el", "m68k"]
)
async def test_a_replay_from_reset_is_that_from_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """So recordings need no snapshot, and those that have one replay as they did."""
    qemu = find_qemu(target)
    old = await recorded_as_once(target, tmp_path, monkeypatch)
    if target.startswith(("ppc64", "mips")) and qemu.version < (8,):
        pytest.skip(f"this QEMU does not replay {target} from a snapshot (docs/quirks.md)")
    facts = LogFacts.read(old.log())
    places = [0, *(facts.clear_before(old.end * part // 100) for part in (1, 40, 99))]
    bare = msgspec.structs.replace(old.manifest, snapshot=False)
    from_reset = await states(Recording(old.folder, bare), qemu, places)
    from_snapshot = await states(old, qemu, places)
    if target in INVERTED:
        from_reset = [(*one[:2], b"") for one in from_reset]
        from_snapshot = [(*one[:2], b"") for one in from_snapshot]
    assert from_snapshot == from_reset
    assert len({digest for _, digest, _ in from_reset}) > 1


async def test_the_guest_does_not_see_where_a_recording_is(
    recorded: Record, tmp_path: Path
) -> None:
    """malta's firmware hands on the kernel's path: it must be that of the recorded run."""
    qemu, original = find_qemu("mips"), recorded("tiny", "mips")
    moved = tmp_path / "a place with a longer name.retro"
    shutil.copytree(original.path, moved, symlinks=True)
    assert await states(Recording.open(moved), qemu, [0]) == await states(original, qemu, [0])
    async with await Replayer.start(original, qemu) as replayer:
        ram = bytes(replayer.ram.view())
    assert b"inputs/mips-tiny.elf" in ram
    assert b".retro" not in ram


async def test_what_starting_takes_does_not_grow_with_ram(tmp_path: Path) -> None:
    """4 GB: neither QEMU allocates more than a tiny guest uses, recording or replaying."""
    qemu, guest = find_qemu("x86_64"), builtin_guest("tiny")
    arguments = ["4096" if word == "32" else word for word in guest.qemu_args]
    recording = await record(tmp_path / "big.retro", arguments)
    assert recording.manifest.ram.bytes == 4 << 30
    image = recording.path / "machine.qcow2"
    assert image.stat().st_size < 1 << 20  # a snapshot with RAM took 9 bytes for each page
    async with await Replayer.start(recording, qemu) as replayer:
        await replayer.gdb()
        assert replayer.ram.present().sum() < 8
        await replayer.run_to(recording.end // 2)
        assert replayer.ram.present().sum() < 16
