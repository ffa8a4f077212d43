"""Windows full of interrupts hold memory, the same as a machine parked at each position."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from retrograde.guests import builtin_guest
from retrograde.machine.recorder import record
from retrograde.recording.bundle import Recording
from retrograde.timeline.filling import fill
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.opening import checkpoints_of, probes_for
from retrograde.timeline.pages import PAGE
from retrograde.timeline.seat import Seat
from retrograde.timeline.timeline import Timeline
from retrograde.timeline.window import Window
from tests.conftest import qemu_that_replays

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

GUESTS = (
    *(("i386", "pc", "frames"), ("x86_64", "microvm", "frames"), ("x86_64", "pc", "pagefault")),
    *((target, "", "aliases") for target in ("arm", "riscv64")),
    *((target, "", "tiny") for target in ("aarch64", "ppc64", "mipsel")),
)
"""32-bit code, in a 64-bit machine too, and an ISA each; pagefault and aliases have paging on."""

SPAN = 1200
"""Positions of a window: a tick comes every 1000 instructions, or more often."""


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Callable[[str, str, str], object]:
    """Return a function that records a guest at the lowest speed: its ticks come thickest."""
    made: dict[tuple[str, str, str], Recording] = {}

    async def get(target: str, board: str, name: str) -> Recording:
        key = target, board, name
        if key not in made:
            qemu_that_replays(target)
            guest = builtin_guest(name, target, board)
            path = tmp_path_factory.mktemp("dense") / "a.retro"
            arguments = [*guest.qemu_args, "-icount", "shift=10"]
            made[key] = await record(path, arguments, target=target)
        return made[key]

    return get


@contextlib.asynccontextmanager
async def two_seats(recording: Recording) -> AsyncIterator[tuple[Seat, Seat]]:
    qemu = qemu_that_replays(recording.manifest.machine.target)
    store, facts = await checkpoints_of(recording, qemu), LogFacts.read(recording.log())
    (probe,) = probes_for(recording, qemu, facts, 1)
    async with (
        await Seat.take(recording, qemu, store, facts, probe) as filler,
        await Seat.take(recording, qemu, store, facts) as parker,
    ):
        yield filler, parker
    probe.close()
    store.close()


def busy_span(facts: LogFacts, end: int) -> tuple[int, int]:
    """A span late in the guest's own work, with a delivery near its middle."""
    later = facts.deliveries[facts.deliveries < end - SPAN]
    middle = int(later[int(0.7 * len(later))])
    return middle - SPAN // 2, middle + SPAN // 2


def chosen_positions(facts: LogFacts, start: int, end: int) -> list[int]:
    """Around each delivery, and some others."""
    inside = facts.deliveries[(facts.deliveries > start) & (facts.deliveries < end)].tolist()
    near = {at + more for at in inside[-4:] for more in (-1, 0, 1, 2, 9)}
    return sorted(at for at in near | {*range(start, end, 397)} if start <= at <= end)


def differing(window: Window, seat: Seat, position: int) -> list[int]:
    """Return the pages that are known in the window and are others in the machine."""
    assert window.writes is not None
    ends = window.writes.offsets + window.writes.sizes - 1
    pages = np.unique(np.concatenate([window.writes.offsets, ends]) // PAGE).tolist()
    ram, wrong = seat.ram.array(), []
    for page in pages:
        held = window.writes.read(page * PAGE, PAGE, position)
        if held is not None and held != bytes(ram[page * PAGE : (page + 1) * PAGE]):
            wrong.append(page)
    return wrong


@pytest.mark.parametrize(("target", "board", "name"), GUESTS)
async def test_memory_in_a_window_is_that_of_a_parked_machine(dense, target, board, name):
    recording = await dense(target, board, name)
    async with two_seats(recording) as (filler, parker):
        view, facts = await MachineView.of(filler), filler.facts
        start, end = busy_span(facts, recording.end)
        await parker.go(start)
        packet = await (await parker.gdb()).read_registers()
        registers = view.decode(packet)
        places = sorted({registers[view.isa.sp] & -PAGE, registers[view.isa.pc] & -PAGE, 0x7000})
        window = await fill(filler, view, start, end, places if view.follows else ())
        assert window.writes is not None
        assert name == "pagefault" or not window.writes.unclear  # that one's page tables
        positions = chosen_positions(facts, start, end)
        assert len([at for at in positions if facts.is_delivery(at)]) > 0
        for position in positions:
            await parker.go(position)
            assert differing(window, parker, position) == [], position
            for page, place in window.places.items():
                answer = await parker.human(f"gva2gpa {page:#x}")
                is_mapped = answer.startswith("gpa: ")
                physical = int(answer.split()[-1], 16) if is_mapped else (1 << 64) - 1
                assert place.at(position) == physical, (position, hex(page))


@pytest.mark.parametrize("target", ["i386", "aarch64", "ppc64", "mipsel"])
async def test_looking_around_parks_no_machine(dense, monkeypatch, target):
    recording = await dense(target, "", "tiny")
    _, end = busy_span(LogFacts.read(recording.log()), recording.end)
    async with await Timeline.open(recording, at=end) as timeline:
        for _ in range(3):
            await timeline.step_back()
            registers = await timeline.registers()
            await look(timeline, registers)
        parked = []
        monkeypatch.setattr(Timeline, "_parked", lambda *_: parked.append(1))
        for _ in range(300):
            await timeline.step_back()
            await look(timeline, await timeline.registers())
        assert not parked


async def look(timeline: Timeline, registers) -> None:
    """Read what a debugger reads at each stop."""
    await timeline.read(await timeline.pc(), 4)
    await timeline.read(registers[timeline.view.isa.sp], 16)
