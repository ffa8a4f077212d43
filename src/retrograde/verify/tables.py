"""The index's tables against what single steps, another probe and RAM itself show.

Spans of a few hundred positions are chosen at random, as many of them around an interrupt,
an exception or a byte for the console, which takes calls, as anywhere. One replay sweeps
through the recording and makes the rows of these spans as the index makes them. The same
spans are then looked at by others: gdb steps through each in a fresh replay without a
probe, which gives every instruction, call, return and change of context, and RAM before
and after; and a probe that logs each store, other code than that which marks lines, says
what was written by what. Nothing may differ.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from numpy.typing import NDArray

from retrograde.errors import Divergence, EnvironmentLacks
from retrograde.index.tables.files import Interval
from retrograde.index.tables.interval import REPLAYED, Columns, sweep
from retrograde.index.tables.logtables import build_log_tables
from retrograde.index.tables.plan import LONGEST
from retrograde.index.tables.store import IndexStore
from retrograde.machine.probe.coverage import capacity_for
from retrograde.machine.probe.probe import Capacity
from retrograde.machine.probe.support import require_probe
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Kind
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.opening import checkpoints_of, probe_for
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.verify.conventions import CONVENTIONS
from retrograde.verify.tablecompare import Comparison
from retrograde.verify.tablesteps import step_through

Report = Callable[[str], None]

LENGTH = 400
"""Positions of a span, if not said otherwise."""

HOLES = 4 << 30
"""Bytes of physical addresses below the end of RAM that are not RAM, at most."""


class TablesResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared and found equal: spans, their positions, and rows by table."""

    spans: int
    positions: int
    seed: int
    rows: dict[str, int]


async def compare_tables(
    recording: Recording,
    qemu: Qemu,
    *,
    count: int,
    seed: int,
    length: int = LENGTH,
    end: int | None = None,
    report: Report = lambda _text: None,
) -> TablesResult:
    """Compare the rows of `count` random spans of `length` positions, all choices by `seed`.

    Spans lie before `end`, which RISC-V needs where the guest idles: a single step over
    its wfi hangs QEMU (docs/quirks.md).
    Checkpoints are made where there are none. Raises Divergence naming the table, the
    position and what differs; EnvironmentLacks for an ISA whose calls are not known.
    """
    target = recording.manifest.machine.target
    if target not in CONVENTIONS:
        raise EnvironmentLacks(
            f"The oracle of the tables does not know the calls of {target}.",
            f"Use a recording of {', '.join(CONVENTIONS)}.",
        )
    facts = LogFacts.read(recording.log())
    bytes_out = [event.position for event in recording.log().events([Kind.CHAR_WRITE])]
    marks = (facts.interrupts.tolist(), facts.exceptions.tolist(), bytes_out)
    spans = choose_spans(facts, marks, end or recording.end, count, length, seed)
    rows: Counter[str] = Counter()
    checkpoints = await checkpoints_of(recording, qemu)
    with contextlib.closing(checkpoints) as store:
        report("making the rows")
        made, view = await _sweep(recording, qemu, store, facts, spans)
        report("logging the stores")
        stores = await _stores(recording, qemu, store, facts, spans)
    report("stepping")
    async with contextlib.aclosing(step_through(recording, qemu, spans)) as steps:
        async for span, seen in steps:
            compared = Comparison(span, made[span], seen, CONVENTIONS[target], seed)
            compared.blocks()
            compared.calls()
            compared.context()
            compared.written(stores[span], view)
            compared.intervals()
            rows.update({name: len(next(iter(made[span][name].values()))) for name in REPLAYED})
            report(f"equal up to {span[1]:_}")
    return TablesResult(
        spans=len(spans),
        positions=sum(last - first for first, last in spans),
        seed=seed,
        rows=dict(rows),
    )


def choose_spans(
    facts: LogFacts,
    marks: Sequence[Sequence[int]],
    end: int,
    count: int,
    length: int,
    seed: int,
) -> list[Interval]:
    """Choose up to `count` spans that do not meet, rising; each ends where one state is.

    Each kind of `marks` gets as many spans around it as are anywhere.
    """
    dice = random.Random(seed)  # noqa: S311 - choices, not secrets
    inside = [[at for at in kind if at < end] for kind in marks]
    chosen: list[Interval] = []
    for _ in range(20 * count):
        around = dice.choice([*(kind for kind in inside if kind), range(end)])
        start = max(0, dice.choice(around) - dice.randrange(length))
        first = facts.clear_from(start)
        last = facts.clear_from(first + length)
        if last < end - length and all(last < one[0] or one[1] < first for one in chosen):
            chosen.append((first, last))
        if len(chosen) == count:
            break
    return sorted(chosen)


def reconcile(recording: Recording) -> dict[str, int]:
    """Compare the tables read from the log with the recording's own counts and console.

    Returns how many of each there are. Raises Divergence where they differ.
    """
    store = IndexStore(recording)
    build_log_tables(store, recording)
    counts, console = recording.log().summary().counts, recording.console_bytes()
    with store.connect() as tables:
        found = {
            name: tables.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]  # noqa: S608
            for name in ("interrupts", "exceptions")
        }
        lines = tables.execute(
            "SELECT console_byte, text FROM console WHERE port = 'console' ORDER BY line"
        ).fetchall()
    expected = {
        "interrupts": counts.get(Kind.INTERRUPT, 0),
        "exceptions": counts.get(Kind.EXCEPTION, 0),
    }
    edges = [at for at, _ in lines] + [len(console)]
    found["console bytes"] = sum(b - a for a, b in pairwise(edges)) + min(edges)
    expected["console bytes"] = len(console)
    if found != expected:
        raise Divergence(f"The tables have {found}, the log {expected}.")
    for (at, text), after in zip(lines, edges[1:], strict=True):
        if text != console[at:after].rstrip(b"\r\n").decode(errors="replace"):
            raise Divergence(f"The console's line at byte {at} is not {text!r}.")
    return found


async def _sweep(
    recording: Recording,
    qemu: Qemu,
    store: CheckpointStore,
    facts: LogFacts,
    spans: Sequence[Interval],
) -> tuple[dict[Interval, dict[str, Columns]], MachineView]:
    """Return the rows of each span, made in one replay, as the index makes its intervals'."""
    capacity = capacity_for(recording.manifest.ram.bytes + HOLES)
    edges = sorted({0, *(at for span in spans for at in span)})
    # As in the index, no interval is so long that its rows outgrow the probe's tables.
    between = (range(a + LONGEST, b, LONGEST) for a, b in pairwise(edges))
    edges = sorted({*edges, *(facts.clear_from(at) for inner in between for at in inner)})
    made = {}
    with probe_for(recording, facts, require_probe(qemu.path), capacity) as probe:
        async with await Seat.take(recording, qemu, store, facts, probe) as seat:
            view = await MachineView.of(seat)
            async for interval, tables in sweep(seat, view, list(pairwise(edges))):
                if interval in spans:
                    made[interval] = tables
    return made, view


async def _stores(
    recording: Recording,
    qemu: Qemu,
    store: CheckpointStore,
    facts: LogFacts,
    spans: Sequence[Interval],
) -> dict[Interval, NDArray[Any]]:
    """Return what a probe that logs stores has to say of each span."""
    logged = {}
    capacity = Capacity(hits=1, writes=1 << 18, steps=1, changes=1)
    with probe_for(recording, facts, require_probe(qemu.path), capacity) as probe:
        async with await Seat.take(recording, qemu, store, facts, probe) as seat:
            for first, last in spans:
                probe.arm(writes=True, span=(first, last))
                await seat.go(first, load=True)
                await seat.run_on(last)
                logged[first, last] = probe.writes().copy()
    return logged
