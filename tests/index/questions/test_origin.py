"""A value is followed back along the way that the guest `moves` was written to send it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import retrograde
from retrograde.errors import UsageError
from retrograde.guests.builtin import builtin_guest
from retrograde.index.questions.hints import IndexHints
from retrograde.index.questions.origin import Step, origin, origin_of_register
from retrograde.index.symbols.symbolfile import read_symbol_file
from retrograde.index.tables.build import build
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from tests import command

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

WAY = (
    *("store", "copy", "copy", "copy", "copy", "load", "store"),
    *("store", "load", "store", "load", "store", "copy", "constant"),
)
"""What the instructions way_13 to way_0 of `moves` do."""

ENDS = {
    "sum": ("store sum_stored", "computed sum_set"),
    "port": ("store port_stored", "input port_read"),
    "direct": ("constant direct_stored",),
    "zero": ("store zero_stored", "constant zero_set"),
    "never": ("untouched",),
}
"""By variable: the way of what is in it, and where it ends."""


@pytest.fixture(scope="module")
def labels() -> dict[str, int]:
    file = read_symbol_file(builtin_guest("moves").files[0])
    assert file is not None
    return {symbol.name: symbol.address for symbol in file.symbols}


def named(steps: list[Step], labels: dict[str, int]) -> list[str]:
    names = {address: name for name, address in labels.items()}
    return [f"{step.kind} {names.get(step.pc, '?') if step.pc else ''}".strip() for step in steps]


async def test_the_way_of_a_value(copied: Callable[..., object], labels: dict[str, int]) -> None:
    recording = Recording.open(str(copied("moves")))
    await build(recording, tables=["blocks", "written"])
    expected = [f"{kind} way_{13 - number}" for number, kind in enumerate(WAY)]
    async with await Timeline.open(recording) as timeline:
        ways = []
        for known in (None, IndexHints.of(recording)):
            timeline.hints = known
            await timeline.seek(timeline.end)
            ways.append(await origin(timeline, labels["fourth"], 8))
        assert named(ways[0], labels) == expected
        assert ways[1] == ways[0]
        for step in ways[0]:
            await timeline.seek(step.position)
            assert await timeline.pc() == step.pc
        store = ways[0][0]
        await timeline.seek(store.position)
        register = store.instruction.split()[-1]
        assert await origin_of_register(timeline, register) == ways[0][1:]
        for name in ("rip", "nonsense"):
            with pytest.raises(UsageError, match="cannot be followed"):
                await origin_of_register(timeline, name)
        await timeline.seek(timeline.end)
        short = await origin(timeline, labels["fourth"], 8, most=3)
        assert short == ways[0][:3]
        # Before it was moved on there was nothing.
        await timeline.seek(ways[0][0].position)
        before = await origin(timeline, labels["fourth"], 8)
        assert [step.kind for step in before] == ["untouched"]


async def test_an_index_with_a_gap_on_the_way(
    copied: Callable[..., object], labels: dict[str, int]
) -> None:
    """Nobody knows who wrote there; the value is looked for all the same."""
    recording = Recording.open(str(copied("moves")))
    async with await Timeline.open(recording) as timeline:
        await timeline.seek(timeline.end)
        expected = await origin(timeline, labels["fourth"], 8)
        last = expected[0].position + 1
        store = IndexStore(recording)
        for table in ("blocks", "written"):
            store.write(table, last, last + 1, {one.name: [] for one in TABLES[table].columns})
        row = {one.name: [0] for one in TABLES["intervals"].columns}
        store.write("intervals", last, last + 1, row | {"first": [last], "last": [last + 1]})
        timeline.hints = IndexHints(store)
        await timeline.seek(timeline.end)
        assert await origin(timeline, labels["fourth"], 8) == expected


async def test_where_ways_end(copied: Callable[..., object], labels: dict[str, int]) -> None:
    recording = Recording.open(str(copied("moves")))
    async with await Timeline.open(recording) as timeline:
        for variable, expected in ENDS.items():
            await timeline.seek(timeline.end)
            steps = await origin(timeline, labels[variable], 1 if variable == "port" else 4)
            assert named(steps, labels) == list(expected), variable
        interrupt = int(timeline.facts.interrupts[-5])
        await timeline.seek(interrupt)
        registers = await timeline.registers()
        steps = await origin(timeline, registers["rsp"], 8)
        assert [(step.kind, step.position) for step in steps] == [("delivery", interrupt - 1)]


async def test_what_a_device_wrote(copied: Callable[..., object]) -> None:
    recording = retrograde.open(str(copied("moves")))
    steps = await origin_of(recording, 0xCA000)
    assert [step.kind for step in steps] == ["device"]


async def origin_of(recording: Recording, physical: int) -> list[Step]:
    async with await Timeline.open(recording, at="end") as timeline:
        return await origin(timeline, physical, 4, "physical")


async def test_aarch64(recorded: Callable[..., Recording]) -> None:
    """Idling, the guest awaits interrupts; their handler saves x0, x1 and x2 on the stack.

    x1 was of no use since it was 0 at the end of a text; x0 is the count of the ticks.
    """
    file = read_symbol_file(builtin_guest("tiny", "aarch64").files[0])
    assert file is not None
    top = next(symbol.address for symbol in file.symbols if symbol.name == "stack_top")
    async with await Timeline.open(recorded("tiny", "aarch64")) as timeline:
        ways = []
        for saved in (top - 32, top - 24, 0x40200004):
            await timeline.seek(timeline.end)
            steps = await origin(timeline, saved, 4, "physical", most=1000)
            ways.append([f"{step.kind} {step.instruction}".strip() for step in steps])
    store, load = "store stp x0, x1, [sp, #-0x20]!", "load ldp x0, x1, [sp], #0x20"
    assert ways[0] == [store, "load ldr x0, [x21]", "store str x1, [x0]", "computed add x1, x1, #1"]
    ticks = (len(ways[1]) - 3) // 2
    assert ticks >= 40
    assert ways[1] == [*[store, load] * ticks, store, "load ldrb w1, [x0], #1", "untouched"]
    assert ways[2] == ["store str w2, [x0], #4", "computed add w2, w2, w1"]


async def test_riscv64(recorded: Callable[..., Recording]) -> None:
    """Working, the guest is interrupted; the handler saves t0, t1, t2 and ra on the stack.

    The work has just set t0, from s0. t2 it does not use: it is as the first call of
    what sets the timer left it, and each handler since saved and restored it.
    """
    file = read_symbol_file(builtin_guest("tiny", "riscv64").files[0])
    top = next(symbol.address for symbol in file.symbols if symbol.name == "stack_top")
    async with await Timeline.open(recorded("tiny", "riscv64")) as timeline:
        ways = []
        for saved, count in ((top - 32, 8), (top - 16, 8), (top - 8, 8), (0x80200004, 4)):
            await timeline.seek(timeline.resolve("console:PHASE"))
            steps = await origin(timeline, saved, count, "physical", most=1000)
            ways.append([f"{step.kind} {step.instruction}" for step in steps])
    assert [way[0] for way in ways[:3]] == [
        f"store c.sdsp {register}, {at}(sp)"
        for register, at in (("t0", "0"), ("t2", "0x10"), ("ra", "0x18"))
    ]
    ticks = len(ways[1]) // 2
    assert ticks >= 40
    store, load = ways[1][:2]
    assert ways[1] == [*[store, load] * (ticks - 1), store, "computed addiw t2, t2, 0x710"]
    assert ways[2][-1].startswith("constant jalr ra")
    assert ways[3] == ["store sw t2, 0(t0)", "computed addw t2, t2, t1"]


async def test_what_cannot_be_followed(copied: Callable[..., object]) -> None:
    recording = Recording.open(str(copied("moves")))
    async with await Timeline.open(recording, at="end") as timeline:
        for address, count, words in ((0x100000, 9, "9 bytes"), (0x100FFF, 2, "cross a page")):
            with pytest.raises(UsageError, match=words):
                await origin(timeline, address, count)


def test_the_command(copied: Callable[..., object], labels: dict[str, int]) -> None:
    path = str(copied("moves"))
    told = command.retrograde("origin", path, f"{labels['sum']:#x}:8", "--json").json()
    assert [step["kind"] for step in told] == ["store", "computed"]
    assert told[1]["instruction"] == "add rcx, r10"
    shown = command.retrograde("origin", path, f"{labels['direct']:#x}:4")
    assert shown.status == 0
    assert "0x1234" in shown.stdout.decode()
    register = command.retrograde("origin", path, "rcx", "--at", told[0]["position"], "--json")
    assert register.json() == told[1:]
    command.assert_error(command.retrograde("origin", path, "0x1000:9"), 2, "9 bytes")
    command.assert_error(command.retrograde("origin", path, "0x40000000:8"), 2, "not mapped")


def test_other_targets_are_refused(recorded: Callable[..., Recording]) -> None:
    path = recorded("tiny", "arm").path
    done = command.retrograde("origin", path, "0x40200000:4")
    command.assert_error(done, 3, "arm", "last-write")
