"""Triple faults: what led to them, and that nothing else is taken for one."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from retrograde.index.database import Database
from retrograde.index.tables.build import build
from retrograde.machine.qemu import Qemu
from retrograde.machine.triplefault import FILE, chain_of, find_fault, known_fault
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Kind
from tests.command import retrograde
from tests.system import programs

EXCEPTION, INTERRUPT = Kind.EXCEPTION, Kind.INTERRUPT
UNDEFINED = """\
check_exception old: 0xffffffff new 0x6
check_exception old: 0xffffffff new 0xd
check_exception old: 0xd new 0xd
check_exception old: 0x8 new 0xd
Triple fault
"""
CALLED = """\
     0: v=30 e=0000 i=1 cpl=0 IP=0008:0000000000007c3c pc=0000000000007c3c
check_exception old: 0xffffffff new 0xd
     1: v=0d e=0182 i=0 cpl=0 IP=0008:0000000000007c3c pc=0000000000007c3c
check_exception old: 0xd new 0xd
     2: v=08 e=0000 i=0 cpl=0 IP=0008:0000000000007c3c pc=0000000000007c3c
check_exception old: 0x8 new 0xd
Triple fault
"""
PAGE_FAULTS = """\
check_exception old: 0xffffffff new 0xe
check_exception old: 0xe new 0xe
check_exception old: 0x8 new 0xe
Triple fault
"""


@pytest.mark.parametrize(
    ("said", "taken", "chain"),
    [
        (UNDEFINED, [EXCEPTION] * 3, ("#UD", "#GP", "#DF")),
        (CALLED, [EXCEPTION] * 3, ("int 0x30", "#GP", "#DF")),
        (CALLED, [INTERRUPT, EXCEPTION, EXCEPTION], ("interrupt 0x30", "#GP", "#DF")),
        (UNDEFINED, [EXCEPTION] * 4, ("int", "#UD", "#GP", "#DF")),
        (PAGE_FAULTS, [EXCEPTION] * 2, ("#PF", "#DF")),
        (
            "check_exception old: 0xffffffff new 0xe\n" + PAGE_FAULTS,
            [EXCEPTION] * 2,
            ("#PF", "#DF"),
        ),
        (UNDEFINED.removesuffix("Triple fault\n"), [EXCEPTION] * 3, ()),
        ("Triple fault\n", [EXCEPTION] * 3, ()),
        ("", [EXCEPTION] * 2, ()),
    ],
)
def test_what_qemu_says_of_it(said: str, taken: list[Kind], chain: tuple[str, ...]) -> None:
    assert chain_of(said, taken) == chain


@pytest.mark.qemu
def test_a_recording_that_ends_by_one_says_so(tmp_path: Path, qemu: Qemu) -> None:
    folder, guest = tmp_path / "x.retro", programs.triple_fault(tmp_path)
    said = retrograde("record", "-o", folder, "--", *guest, "-no-reboot").stdout.decode()
    recording = Recording.open(folder)
    end = recording.end
    words = f"a triple fault: #UD -> #GP -> #DF -> reset at {end:_}, pc {programs.UD2:#x}"
    assert words in " ".join(said.split())
    told = json.loads(retrograde("info", "--json", folder).stdout)["triple_fault"]
    assert told == {"position": end, "pc": programs.UD2, "chain": ["#UD", "#GP", "#DF"]}
    shutil.rmtree(recording.cache)  # as in a recording that was packed
    assert known_fault(recording) is None
    assert asyncio.run(find_fault(recording, qemu, farthest=end - 1)) is None
    retrograde("index", folder)
    assert str(known_fault(recording)) == words


@pytest.mark.qemu
def test_a_reset_that_is_none(tmp_path: Path, qemu: Qemu) -> None:
    folder = tmp_path / "x.retro"
    retrograde("record", "-o", folder, "--", *programs.reset(tmp_path), "-no-reboot")
    recording = Recording.open(folder)
    assert recording.manifest.ending == "guest-reset"
    assert asyncio.run(find_fault(recording, qemu)) is None
    assert (recording.cache / FILE).exists()  # nobody has to look again


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_resets_inside_a_recording_are_events(tmp_path: Path) -> None:
    folder = tmp_path / "x.retro"
    retrograde("record", "-o", folder, "--", *programs.triple_fault(tmp_path))
    recording = Recording.open(folder)
    assert (recording.manifest.ending, recording.console_bytes()) == ("guest-shutdown", b"!!!")
    asyncio.run(build(recording))
    with Database(recording) as database:
        resets = database.query("SELECT position FROM events WHERE kind = 'reset'").all()
        traps = database.query("SELECT position, kind, name FROM traps ORDER BY position").all()
        starts = database.query("SELECT first FROM blocks WHERE pc = 0xfffffff0").all()
        boots = database.query("SELECT count FROM blocks WHERE pc = 0xfffffff0").all()
    assert len(resets) == 2
    # Nothing was delivered: the reset came in place of it.
    assert traps == [(at.position, "exception", None) for at in resets for _ in range(3)]
    assert starts == [(0,)]
    assert boots == [(3,)]
