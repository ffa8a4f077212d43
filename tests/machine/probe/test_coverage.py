"""Coverage against the probe's other logs, which tell of every instruction one by one."""

import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retrograde.errors import InternalError
from retrograde.machine.probe.coverage import Coverage, Covered, capacity_for
from retrograde.machine.probe.page import LINE_BYTES, RecordFlag
from retrograde.machine.probe.probe import Probe
from retrograde.machine.probe.support import require_probe
from retrograde.recording.rrevents import Kind
from retrograde.timeline.search import hit_of
from tests.machine.probe.test_probe import busy_span, clear_of
from tests.machine.replaylab import MEMORY, QEMU, Replay, deliveries_of, positions_of

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"needs {QEMU}"),
]

GUESTS = (
    *("tiny", "pagefault", "syscall", "rep", "smc"),
    *("exceptions", "nested", "hot", "stacks", "unaligned"),
)
CODE_FIXED = {*GUESTS} - {"smc", "pagefault"}  # and mapped one to one
SPANS = [*((guest, "busy") for guest in GUESTS), ("tiny", "words"), ("hot", "words")]
LENGTH = 12_000
STATE = ("rsp", "cr3", "cs", "cr0", "efer")


@dataclass
class Span:
    """What coverage says of a span, beside every instruction, store and register of it.

    The latter are from the probe's logs of another replay. `ram` is as at the end.
    """

    first: int
    last: int
    delivered: set[int]
    seen: Covered
    calls: Any
    ram: Any
    pcs: dict[int, int]
    states: dict[int, Any]
    writes: Any


@pytest.fixture(scope="session")
def span_of(lab_recording):
    """A function from a guest's name and a place in it to its Span, made once."""
    made = {}

    def span(guest, where):
        if (guest, where) not in made:
            made[guest, where] = measure(guest, lab_recording(guest), where)
        return made[guest, where]

    return span


def measure(guest, folder, where):
    if where == "busy":
        first, last = busy_span(folder, LENGTH, part=0.02)
    else:  # its first words: calls, and a device in the middle of blocks
        middle = int(positions_of(folder, Kind.CHAR_WRITE)[2])
        edges = (middle - LENGTH // 2, middle + LENGTH // 2)
        first, last = (clear_of(deliveries_of(folder), at) for at in edges)
    seen, calls, ram = cover(guest, folder, first, last)
    pcs, states, writes = log_all(guest, folder, first, last)
    delivered = set(deliveries_of(folder).tolist())
    return Span(first, last, delivered, seen, calls, ram, pcs, states, writes)


def probe_on(folder, capacity=None):
    library = require_probe(Path(shutil.which(QEMU)))
    at = [positions_of(folder, kind) for kind in (Kind.EXCEPTION, Kind.INTERRUPT)]
    return Probe(library, *at, capacity=capacity)


def wide_probe(folder):
    return probe_on(folder, capacity_for(MEMORY))


def cover(guest, folder, first, last, stops=()):
    with wide_probe(folder) as probe:
        coverage = Coverage(probe)
        coverage.arm(0)
        with Replay(guest, folder, probe=probe) as replay:
            for stop in (*stops, first):
                replay.run_to(stop)
                coverage.take()
            replay.run_to(last)
            seen = coverage.take()
            calls = seen.calls.copy()
            replay.run_to(last + 1000)
            late = coverage.take().calls
            calls = np.concatenate([calls, late[late["position"] < last]])
            ram = replay.ram.copy()
    return seen, calls, ram


def log_all(guest, folder, first, last):
    with probe_on(folder) as probe:
        probe.arm(steps=True, writes=True, registers=STATE, span=(first, last + 2))
        with Replay(guest, folder, probe=probe) as replay:
            replay.run_to(clear_of(deliveries_of(folder), max(0, first - 5000)))
            replay.human("one-insn-per-tb on")
            replay.run_to(last + 20)
        pcs = dict(probe.steps().tolist())  # the last at a position is the one that retires
        states, values, changes, at = {}, {}, probe.changes(), 0
        for position in sorted(pcs):
            while at < len(changes) and changes["position"][at] <= position:
                change = changes[at]
                value = int.from_bytes(change["bytes"].tobytes()[: change["size"]], "little")
                values[STATE[change["reg"]]] = value
                at += 1
            states[position] = SimpleNamespace(**values)
        writes = probe.writes()
        return pcs, states, writes[writes["position"] < last].copy()


@pytest.mark.parametrize(("guest", "where"), SPANS)
def test_every_instruction_is_in_one_block(guest, where, span_of):
    span = span_of(guest, where)
    blocks, pcs, first, last = span.seen.blocks, span.pcs, span.first, span.last
    assert int((blocks["count"] * blocks["instructions"]).sum()) == last - first
    counts, firsts, lasts = Counter(), {}, {}
    for block in blocks:
        start = int(block["first"])
        inside = [pcs[start + n] for n in range(block["instructions"])]
        assert (inside[0], inside[0]) == (block["pc"], pcs[int(block["last"])])
        assert all(low < high for low, high in pairwise(inside))
        assert inside[-1] < block["pc"] + block["size"] <= inside[-1] + 15
        for n, pc in enumerate(inside):
            counts[pc] += int(block["count"])
            firsts[pc] = min(firsts.get(pc, last), start + n)
            lasts[pc] = max(lasts.get(pc, 0), int(block["last"]) + n)
    ran = {position: pc for position, pc in pcs.items() if first <= position < last}
    assert counts == Counter(ran.values())
    assert firsts == {pc: position for position, pc in sorted(ran.items(), reverse=True)}
    assert lasts == {pc: position for position, pc in sorted(ran.items())}


@pytest.mark.parametrize(("guest", "where"), SPANS)
def test_written_lines_are_those_of_all_stores(guest, where, span_of):
    span = span_of(guest, where)
    seen, first = span.seen, span.first
    assert (seen.unplaced, seen.deliveries_missed) == (0, 0)
    marked = {
        int(page) * 64 + line
        for page, lines in zip(seen.pages, seen.lines, strict=True)
        for line in range(64)
        if int(lines) >> line & 1
    }
    expected = set()
    for write in span.writes:
        if write["flags"] & RecordFlag.IO or write["position"] < first:
            continue
        if write["position"] == first and write["flags"] & RecordFlag.DELIVERY:
            continue
        hit = hit_of(write)
        places = hit.placed or range(hit.address, hit.address + hit.size)  # stacks are 1:1
        expected |= {at // LINE_BYTES for at in places}
    assert marked == expected


def opcode_of(ram, pc):
    """The kind of an instruction of a guest mapped one to one, and bytes a return drops."""
    code = ram[pc : pc + 16].tobytes()
    while code[0] in b"\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65" or 0x40 <= code[0] <= 0x4F:
        code = code[1:]
    if code[0] == 0xE8 or (code[0] == 0xFF and code[1] >> 3 & 7 == 2):
        return "call", 0
    if code[0] in (0xC2, 0xC3):
        return "return", int.from_bytes(code[1:3], "little") if code[0] == 0xC2 else 0
    return "", 0


def expected_calls(span):
    """Return the calls as rows: position, pc, target or None, returned, depth, sp, space.

    `returned` is None where that is not to be known: interrupted, or at the very end.
    """
    live, rows, depth = {}, [], 0
    for position in range(span.first, span.last):
        pc, state = span.pcs[position], span.states[position]
        if not state.efer >> 10 & 1:
            continue  # firmware: calls are told in 64-bit code only
        kind, dropped = opcode_of(span.ram, pc)
        after = None if position + 1 in span.delivered else span.pcs[position + 1]
        space = state.cr3 if state.cs & 3 == 3 else 0
        if kind == "call":
            rows.append([position, pc, after, 0, depth, state.rsp, state.cr3])
            live[state.rsp, space] = rows[-1]
            depth += 1
        elif kind == "return":
            row = live.pop((state.rsp + 8 + dropped, space), None)
            depth = row[4] if row else 0
            if row and (after is None or position + 1 == span.last):
                row[3] = None
            elif row and row[1] < after <= row[1] + 7:
                row[3] = position + 1
    return rows


@pytest.mark.parametrize(("guest", "where"), [span for span in SPANS if span[0] in CODE_FIXED])
def test_calls_and_returns(guest, where, span_of):
    span = span_of(guest, where)
    expected = expected_calls(span)
    assert where == "busy" or len(expected) > 20
    columns = ["position", "pc", "target", "returned", "depth", "sp", "space"]
    rows = [list(call) for call in span.calls[columns].tolist()]
    for row, other in zip(rows, expected, strict=True):
        assert row == [mine if one is None else one for mine, one in zip(row, other, strict=True)]


@pytest.mark.parametrize(("guest", "where"), SPANS)
def test_context_changes(guest, where, span_of):
    span = span_of(guest, where)
    expected, before = [], {0: None, 1: None}
    for position in range(span.first, span.last):
        now = {0: span.states[position].cr3, 1: span.states[position].cs & 3}
        expected += [(position, kind, now[kind]) for kind in now if now[kind] != before[kind]]
        before = now
    contexts = span.seen.contexts
    assert contexts[["position", "kind", "value"]].tolist() == expected
    assert contexts["initial"].tolist() == [1, 1, *[0] * (len(contexts) - 2)]


@pytest.mark.parametrize("guest", ["smc", "pagefault", "stacks", "nested"])
def test_an_interval_does_not_depend_on_where_the_replay_was_looked_at(
    guest, span_of, lab_recording
):
    span = span_of(guest, "busy")
    stops = [span.first - 5_000, span.first - 1_000]
    stops = [clear_of(deliveries_of(lab_recording(guest)), stop) for stop in stops]
    seen, calls, _ram = cover(guest, lab_recording(guest), span.first, span.last, stops)
    assert sorted(seen.blocks.tolist()) == sorted(span.seen.blocks.tolist())
    assert calls.tobytes() == span.calls.tobytes()
    for name in ("pages", "lines", "contexts"):
        assert getattr(seen, name).tolist() == getattr(span.seen, name).tolist()


def test_coverage_that_began_late_is_refused(lab_recording):
    with wide_probe(lab_recording("tiny")) as probe:
        coverage = Coverage(probe)
        coverage.arm(100_000)
        with Replay("tiny", lab_recording("tiny"), probe=probe) as replay:
            replay.run_to(200_000)
        with pytest.raises(InternalError, match="did not see all"):
            coverage.take()
