"""Boards whose RAM only QEMU sees, and boards that cannot be loaded from a snapshot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.errors import UsageError
from retrograde.machine.quirks import LOADING
from retrograde.machine.recorder import record
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from retrograde.verify.randomly import compare_randomly
from tests.command import assert_error, retrograde
from tests.conftest import find_qemu
from tests.machine.cortexm import (
    COUNT,
    ROUNDS,
    SUM,
    TICK,
    TICKED,
    UARTS,
    UNLOADABLE,
    WORK,
    write_cortex_m,
)

pytestmark = pytest.mark.qemu

BOARDS = tuple(UARTS)

Made = Callable[[str], tuple[Recording, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`made(board)`: a recording of the Cortex-M guest, and what making it said."""
    find_qemu("arm")
    folder, done = tmp_path_factory.mktemp("hidden"), {}

    def get(board: str) -> tuple[Recording, str]:
        if board not in done:
            output = folder / f"{board}.retro"
            arguments = write_cortex_m(folder / f"{board}.bin", board)
            said = retrograde("record", "-o", output, "--target", "arm", "--", *arguments).stderr
            done[board] = Recording.open(output), said
        return done[board]

    return get


@pytest.mark.parametrize("board", BOARDS)
def test_it_is_told_when_recording(made: Made, board: str) -> None:
    recording, said = made(board)
    assert recording.complete
    assert recording.manifest.ending == "guest-reset"
    assert not recording.manifest.ram.shared
    assert said.count("QEMU keeps the RAM of this machine to itself") == 1
    is_unloadable = board == UNLOADABLE
    assert said.count("cannot be loaded") == is_unloadable
    assert (LOADING.name in recording.manifest.quirks) == is_unloadable
    assert recording.console_bytes() == b"a" * (ROUNDS // 256)
    assert retrograde("replay", recording.path).stdout == recording.console_bytes()


@pytest.mark.parametrize("board", BOARDS)
async def test_the_timeline_equals_a_fresh_replay(made: Made, board: str, probe: None) -> None:
    recording, _ = made(board)
    result = await compare_randomly(recording, find_qemu("arm"), count=12, seed=4, report=print)
    assert result.operations == 12


@pytest.mark.parametrize("board", BOARDS)
async def test_it_goes_back_to_who_wrote_what(made: Made, board: str, probe: None) -> None:
    recording, _ = made(board)
    async with await Timeline.open(recording, at="end") as timeline:
        total = ROUNDS * (ROUNDS + 1) // 2
        assert int.from_bytes(await timeline.read(SUM, 4), "little") == total
        for part in (1, 2):
            hit = await timeline.last_store(COUNT, 4)
            assert hit is not None
            assert hit.pc == WORK
            await timeline.seek(hit.position)
            before = await timeline.read(COUNT, 4, "physical")
            assert int.from_bytes(before, "little") == ROUNDS - part
            assert (await timeline.registers())["r2"] == ROUNDS + 1 - part
        number = timeline.add_watchpoint(TICKED, 4)
        ticks = await timeline.hits(0, timeline.end)
        assert {hit.pc for hit in ticks} == {TICK}
        assert await timeline.run_back() == ticks[-1]
        assert await timeline.run_back() == ticks[-2]
        timeline.remove(number)
        place = timeline.position
        await timeline.step_back(100)
        await timeline.step(100)
        assert timeline.position == place
        with pytest.raises(UsageError, match="cannot be seen as a whole"):
            await timeline.digest()


@pytest.mark.gdb
@pytest.mark.parametrize("board", BOARDS)
def test_gdb_goes_both_ways(made: Made, board: str, probe: None) -> None:
    if shutil.which("gdb-multiarch") is None:
        pytest.skip("gdb-multiarch is not installed")
    recording, _ = made(board)
    words = ("reverse-stepi", f"watch *(int*){TICKED:#x}", "reverse-continue", "p/x $pc", "stepi")
    commands = [word for line in words for word in ("-ex", line)]
    done = retrograde("debug", recording.path, "--at", "50%", "--", "-batch", *commands)
    said = done.stdout.decode()
    assert "Old value" in said
    assert f"$1 = {TICK:#x}" in said


def test_what_takes_all_of_ram_is_refused_in_words(made: Made) -> None:
    recording, _ = made(BOARDS[0])
    done = retrograde("index", recording.path)
    assert_error(done, 3, "QEMU keeps the RAM of this machine to itself", "`debug`, `last-write`")
    assert retrograde("query", recording.path, "SELECT count(*) FROM console").stdout
    found = retrograde("last-write", "--json", recording.path, f"{COUNT:#x}").json()
    assert found["physical"] == COUNT


async def test_the_trial_can_be_left_out(tmp_path: Path) -> None:
    find_qemu("arm")
    told: list[str] = []
    arguments = write_cortex_m(tmp_path / "guest.bin", UNLOADABLE)
    untried = await record(
        tmp_path / "untried.retro",
        arguments,
        target="arm",
        without_quirks=frozenset({LOADING.name}),
        warn=told.append,
    )
    assert LOADING.name not in untried.manifest.quirks
    assert not any("cannot be loaded" in one for one in told)
