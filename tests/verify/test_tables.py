"""The tables of the index against single steps, on small guests of each ISA."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from retrograde.errors import Divergence
from retrograde.index.symbols.symbolfile import read_symbol_file
from retrograde.index.tables import interval
from retrograde.machine.compat import qemu_for
from retrograde.recording.bundle import Recording
from retrograde.timeline.timeline import Timeline
from retrograde.verify import tables
from retrograde.verify.conventions import CONVENTIONS
from retrograde.verify.tables import compare_tables, reconcile

Record = Callable[..., Recording]

GREETED = 4000
"""A position before which the tiny guests have called what writes to their consoles."""


def compare(recording: Recording, **options: int) -> dict[str, int]:
    options = {"count": 3, "length": 150, "seed": 5, **options}
    return asyncio.run(compare_tables(recording, qemu_for(recording), **options)).rows


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_tables_of_a_guest_with_interrupts(recorded: Record) -> None:
    rows = compare(recorded("stacks"))
    assert rows["blocks"] > 4
    assert rows["intervals"] == 3


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_a_call_that_traps(recorded: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest steps through its own code: each instruction ends in a handler."""
    recording = recorded("exceptions")
    call = asyncio.run(last_call_in(recording, "debug_cases"))
    monkeypatch.setattr(tables, "choose_spans", lambda *_: [(call - 20, call + 60)])
    assert compare(recording)["calls"] == 1


async def last_call_in(recording: Recording, function: str) -> int:
    """Return the position of the last call by the first call instruction of a function."""
    file = read_symbol_file(next(recording.path.glob("inputs/*.elf")))
    assert file is not None
    start = next(symbol.address for symbol in file.symbols if symbol.name == function)
    async with await Timeline.open(recording, at="end") as timeline:
        code = await timeline.read(start, 64)
        timeline.add_breakpoint(start + code.index(b"\xe8"))
        hit = await timeline.run_back()
    assert hit is not None
    return hit.position


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize("target", sorted({*CONVENTIONS} - {"x86_64"}))
def test_tables_of_each_isa(recorded: Record, target: str) -> None:
    rows = compare(recorded("tiny", target), length=300, end=GREETED)
    assert rows["calls"] > 0
    assert rows["written"] > 0


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_a_wrong_row_is_found(recorded: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    right = interval._calls

    def wrong(*seen: object):  # type: ignore[no-untyped-def]
        made = right(*seen)
        return {**made, "depth": made["depth"] + 1}

    monkeypatch.setattr(interval, "_calls", wrong)
    with pytest.raises(Divergence, match="The table calls differs at"):
        compare(recorded("tiny"))


@pytest.mark.qemu
def test_counts_reconcile_with_the_log(recorded: Record) -> None:
    recording = recorded("tiny")
    found = reconcile(recording)
    assert found["interrupts"] == recording.manifest.events["interrupt"] > 0
    assert found["console bytes"] == recording.console_path.stat().st_size > 0
