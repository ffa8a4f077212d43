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
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from retrograde.errors import Divergence, EnvironmentLacks, QemuRefused
from retrograde.index.interval import REPLAYED, Columns, sweep
from retrograde.index.logtables import build_log_tables
from retrograde.index.plan import LONGEST
from retrograde.index.store import IndexStore, Interval
from retrograde.machine.gdbremote import GdbRemote
from retrograde.machine.isa import Isa, isa_for
from retrograde.machine.probe import Capacity
from retrograde.machine.probe_coverage import capacity_for
from retrograde.machine.probe_page import LINE_BYTES, PAGE_BYTES, RecordFlag
from retrograde.machine.probe_support import require_probe
from retrograde.machine.qemu import Qemu
from retrograde.machine.ram import MIB, GuestRam
from retrograde.machine.replayer import Replayer
from retrograde.machine.segment import ask_linear_pc
from retrograde.machine.targetdesc import RegisterLayout
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Kind
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.machineview import MachineView
from retrograde.timeline.opening import checkpoints_of, probe_for
from retrograde.timeline.seat import Seat
from retrograde.timeline.store import CheckpointStore
from retrograde.verify.conventions import CONVENTIONS, Conventions

Report = Callable[[str], None]

LENGTH = 400
"""Positions of a span, if not said otherwise."""

LONGEST_CODE = 15
"""Bytes of an instruction, at most."""

HOLES = 4 << 30
"""Bytes of physical addresses below the end of RAM that are not RAM, at most."""

LINES = PAGE_BYTES // LINE_BYTES


class TablesResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared and found equal: spans, their positions, and rows by table."""

    spans: int
    positions: int
    seed: int
    rows: dict[str, int]


@dataclass
class Seen:
    """A span as single steps and RAM show it.

    `states` has the registers at each position, after what is delivered there; `arrived`
    is the pc where the instruction before led, `pcs` that of the one that retires next.
    `changed` are numbers of RAM's lines.
    """

    states: dict[int, Mapping[str, int]] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=dict)
    pcs: dict[int, int] = field(default_factory=dict)
    codes: dict[int, bytes] = field(default_factory=dict)
    changed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


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
    async with contextlib.aclosing(_step_through(recording, qemu, spans)) as steps:
        async for span, seen in steps:
            compared = _Comparison(span, made[span], seen, CONVENTIONS[target], seed)
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
    counts, console = recording.log().summary().counts, recording.console_path.read_bytes()
    with store.connect() as tables:
        found = {
            name: tables.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]  # noqa: S608
            for name in ("interrupts", "exceptions")
        }
        lines = tables.execute("SELECT console_byte, text FROM console ORDER BY line").fetchall()
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


async def _step_through(
    recording: Recording, qemu: Qemu, spans: Sequence[Interval]
) -> AsyncGenerator[tuple[Interval, Seen], None]:
    """Yield what single steps show of each of `spans`, in one fresh replay."""
    async with await Replayer.start(recording, qemu) as replayer:
        gdb = await replayer.gdb()
        look = await _Look.of(gdb, isa_for(recording.manifest.machine.target))
        for first, last in spans:
            await replayer.run_to(first)
            before, seen = _contents(replayer.ram), Seen()
            while True:
                await look(seen, replayer.position)
                if replayer.position >= last:
                    break
                await gdb.step()
                await replayer.ask_position()
            seen.changed = _changed(before, _contents(replayer.ram))
            yield (first, last), seen


def _contents(ram: GuestRam) -> dict[int, NDArray[np.uint64]]:
    """Return the RAM that was touched so far, by number of its MiB."""
    array = ram.array()
    return {
        int(number): array[number * MIB : (number + 1) * MIB].copy().view(np.uint64)
        for number in np.flatnonzero(ram.present())
    }


def _changed(
    before: Mapping[int, NDArray[np.uint64]], after: Mapping[int, NDArray[np.uint64]]
) -> NDArray[np.int64]:
    """Return the numbers of the lines that differ."""
    found = [np.zeros(0, np.int64)]
    for number, contents in after.items():
        differs = before.get(number, np.zeros_like(contents)) != contents
        lines = np.flatnonzero(differs.reshape(-1, LINE_BYTES // 8).any(axis=1))
        found.append(number * (MIB // LINE_BYTES) + lines)
    return np.concatenate(found)


class _Look:
    """Reads registers and code of a machine that somebody steps."""

    def __init__(self, gdb: GdbRemote, isa: Isa, described: RegisterLayout, held: int) -> None:
        self._gdb = gdb
        self._isa = isa
        self._layout = described.within(held)
        self._others = {
            name: described.register(name).number
            for name in CONVENTIONS[isa.target].special
            if name not in self._layout.names
        }

    @classmethod
    async def of(cls, gdb: GdbRemote, isa: Isa) -> Self:
        """Ask `gdb` which registers there are."""
        return cls(gdb, isa, await gdb.register_layout(isa), len(await gdb.read_registers()) // 2)

    async def __call__(self, seen: Seen, position: int) -> None:
        """Add the machine at `position` to what was seen of a span."""
        packet = await self._gdb.read_registers()
        values = self._layout.decode(packet, self._isa.byte_order)
        order = self._isa.order_at(values)
        state = dict(self._layout.decode(packet, order))
        for name, number in self._others.items():
            digits = await self._gdb.read_register(number)
            state[name] = int.from_bytes(bytes.fromhex(digits.decode()), order)
        pc = await ask_linear_pc(self._isa, state, self._gdb.monitor)
        code = await self._code(pc)
        if self._isa.target != "x86_64" and order == "big":
            code = code[3::-1]
        seen.states[position] = state
        seen.arrived.setdefault(position, pc)
        seen.pcs[position], seen.codes[position] = pc, code

    async def _code(self, pc: int) -> bytes:
        """Return the bytes of an instruction; zeros where the next page is not mapped."""
        size = min(LONGEST_CODE, PAGE_BYTES - pc % PAGE_BYTES)
        with contextlib.suppress(QemuRefused):
            return await self._gdb.read_memory(pc, LONGEST_CODE)
        with contextlib.suppress(QemuRefused):
            return (await self._gdb.read_memory(pc, size)).ljust(LONGEST_CODE, b"\0")
        return bytes(LONGEST_CODE)


class _Comparison:
    """The rows of one span beside what others saw of it."""

    def __init__(
        self,
        span: Interval,
        tables: Mapping[str, Columns],
        seen: Seen,
        conventions: Conventions,
        seed: int,
    ) -> None:
        self._span = span
        self._tables = tables
        self._seen = seen
        self._conventions = conventions
        self._seed = seed

    def blocks(self) -> None:
        """Compare how often each instruction ran, when first and when last."""
        first, last = self._span
        pcs = self._seen.pcs
        counts: Counter[int] = Counter()
        firsts: dict[int, int] = {}
        lasts: dict[int, int] = {}
        for row in self._rows("blocks"):
            inside = [pcs.get(row["first"] + n, 0) for n in range(row["instructions"])]
            self._same("blocks", row["first"], row["pc"], inside[0])
            self._same("blocks", row["last"], row["pc"], pcs.get(row["last"]))
            size = row["pc"] + row["size_bytes"] - inside[-1]
            self._same("blocks", row["first"], 0 < size <= LONGEST_CODE, True)
            for n, pc in enumerate(inside):
                counts[pc] += row["count"]
                firsts[pc] = min(firsts.get(pc, last), row["first"] + n)
                lasts[pc] = max(lasts.get(pc, first), row["last"] + n)
        ran = {position: pcs[position] for position in range(first, last)}
        self._same("blocks", first, counts, Counter(ran.values()))
        self._same("blocks", first, firsts, {pc: at for at, pc in reversed(ran.items())})
        self._same("blocks", first, lasts, {pc: at for at, pc in ran.items()})

    def calls(self) -> None:
        """Compare all columns of all calls."""
        made = sorted(self._rows("calls"), key=lambda row: int(row["position"]))
        expected = list(self._expected_calls())
        for row, other in zip(made, expected, strict=False):
            self._same("calls", other["position"], row, other)
        self._same("calls", self._span[0], len(made), len(expected))

    def context(self) -> None:
        """Compare the changes up to the end, where the last instruction's shows."""
        seen, conventions = self._seen, self._conventions

        def at(position: int) -> dict[str, int]:
            state = seen.states[position]
            return {
                "space": state[conventions.space],
                "privilege": conventions.privilege(state),
            }

        expected = [
            {"position": later, "kind": kind, "value": value}
            for earlier, later in pairwise(range(self._span[0], self._span[1] + 1))
            for kind, value in at(later).items()
            if value != at(earlier)[kind]
        ]
        if self._span[0] == 0:
            expected[:0] = [{"position": 0, "kind": k, "value": v} for k, v in at(0).items()]
        self._same("context", self._span[0], list(self._rows("context")), expected)

    def written(self, stores: NDArray[Any], view: MachineView) -> None:
        """Compare lines with all stores, and those of devices with RAM before and after."""
        made: dict[str, set[int]] = {"bitmap": set(), "device": set()}
        for row in self._rows("written"):
            for name, lines in made.items():
                first = row["page"] // LINE_BYTES
                lines |= {first + line for line in range(LINES) if row[name] >> line & 1}
        placed, unplaced = set(), set()
        for store in stores:
            if store["flags"] & RecordFlag.IO:
                continue
            known = not store["flags"] & RecordFlag.NO_PADDR
            start = int(store["paddr"] if known else store["vaddr"])
            lines = {start // LINE_BYTES, (start + int(store["size"]) - 1) // LINE_BYTES}
            if known:
                placed |= lines
            else:
                unplaced |= {line % LINES for line in lines}
        more = {line for line in made["bitmap"] - placed if line % LINES not in unplaced}
        self._same("written", self._span[0], (more, placed - made["bitmap"]), (set(), set()))
        physical = view.physical(self._seen.changed * LINE_BYTES)
        changed = {int(at) // LINE_BYTES for at in physical if at >= 0}
        self._same("written", self._span[0], made["device"], changed - made["bitmap"])

    def intervals(self) -> None:
        """Compare where it begins and ends."""
        rows = [(row["first"], row["last"]) for row in self._rows("intervals")]
        self._same("intervals", self._span[0], rows, [self._span])

    def _expected_calls(self) -> Iterator[dict[str, Any]]:
        """Return the rows of calls in order, with all that becomes known of them later."""
        seen, ways = self._seen, self._conventions
        live: dict[tuple[int, ...], dict[str, Any]] = {}
        rows, depth = [], 0
        for position in range(*self._span):
            state, pc = seen.states[position], seen.pcs[position]
            kind, dropped = ways.kind(seen.codes[position])
            if not kind or not ways.is_wide(state):
                continue
            sp, led = state[ways.sp], seen.arrived[position + 1]
            space = state[ways.space] if ways.is_user(state) else 0
            follows = 0 < led - pc <= 4 and ways.link
            if follows:
                continue
            if kind == "call":
                rows.append(
                    {
                        "position": position,
                        "pc": pc,
                        "target": led,
                        "return_position": None,
                        "depth": depth,
                        "sp": sp,
                        "space": state[ways.space],
                        **{f"arg{n}": state[name] for n, name in enumerate(ways.arguments)},
                    }
                )
                back = self._after(pc, seen.codes[position])
                live[(sp, space, back) if ways.link else (sp, space)] = rows[-1]
                depth += 1
                continue
            key = (sp, space, led) if ways.link else (sp + 8 + dropped, space)
            row = live.pop(key, None)
            depth = row["depth"] if row else 0
            if row and row["pc"] < led <= row["pc"] + 7 and position + 1 < self._span[1]:
                row["return_position"] = position + 1
        return iter(rows)

    def _after(self, pc: int, code: bytes) -> int:
        """Return the address behind a call of an ISA whose instructions have 2 or 4 bytes."""
        compressed = self._conventions.space == "satp" and code[0] & 3 != 3
        return pc + (2 if compressed else 4)

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        columns = {name: values.tolist() for name, values in self._tables[table].items()}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    def _same(self, table: str, position: int, made: object, expected: object) -> None:
        if made != expected:
            raise Divergence(
                f"The table {table} differs at {position:_} (seed {self._seed}).",
                "Please report this with the recording.",
                f"the table: {made}\nexpected: {expected}",
            )
