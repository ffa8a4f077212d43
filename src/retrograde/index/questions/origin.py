"""Where a value is from: followed backwards through stores, loads and copies.

::

    memory ──► the last store to it ──► the register it stored ──► the instruction that set
    that register ──► the memory it was loaded from ──► the last store to it ──► …

until a constant, a computation, or something from outside. What an instruction is told by
its bytes (`dataflow`), which memory it moved by a trace of the stretch around it, so that no
address is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from retrograde.errors import UsageError
from retrograde.index.questions.dataflow import Slice, Source
from retrograde.index.questions.stretch import Stretch, dataflow_for
from retrograde.machine.probe.page import PAGE_BYTES
from retrograde.machine.probe.record import is_of_device, is_pushed
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Kind as Event
from retrograde.timeline.lastwrite import Piece, last_store, last_write, pieces_of
from retrograde.timeline.reading import Space
from retrograde.timeline.search import hit_of
from retrograde.timeline.timeline import Timeline
from retrograde.timeline.trace import LONGEST

Moved: TypeAlias = Literal["store", "load", "copy"]
Ended: TypeAlias = Literal[
    "constant", "computed", "input", "device", "delivery", "untouched", "unknown"
]
Kind: TypeAlias = Moved | Ended

MOST: Final = 50
"""Steps, unless said otherwise."""

FIRST_TRACE: Final = 200_000
"""Positions traced at a time at first; LONGEST where nothing is found there."""

PATIENCE: Final = 20_000_000
"""Positions gone back for the instruction that set a register, at most."""


@dataclass(frozen=True)
class Step:
    """One step back on a value's way: what the instruction at `position` did with it.

    A "store", "load" or "copy" had it from somewhere else, told by the next step. The others
    end the way: a "constant" in the code, something "computed", "input" from a port, a clock
    or a device's register, a "device" that wrote memory (or a page walk), the "delivery" of
    an interrupt or exception, memory or a register "untouched" since the machine began, or
    "unknown". `pc` is None where no instruction did it. `what` says it in words.
    """

    position: int
    kind: Kind
    pc: int | None
    instruction: str
    what: str


@dataclass(frozen=True)
class Memory:
    """Physical memory, and what is in it."""

    physical: int
    content: bytes

    def __str__(self) -> str:
        count = len(self.content)
        return f"{count} byte{'s' * (count > 1)} at physical {self.physical:#x}"


@dataclass(frozen=True)
class Flow:
    """`count` bytes from byte `first` on of the value that is from `source`."""

    source: Source
    first: int
    count: int


Place: TypeAlias = Memory | Slice


async def origin(
    timeline: Timeline,
    address: int,
    count: int = 8,
    space: Space = "virtual",
    *,
    most: int = MOST,
) -> list[Step]:
    """Return the way back of the value in `count` bytes, 1 to 8, as they are at the cursor.

    The newest step comes first, `most` at most. The cursor moves. Where parts of the value
    are from different places, the one written last is followed. Raises as `last_write`
    does, and EnvironmentLacks for targets whose instructions are not known.
    """
    if not 1 <= count <= 8:
        raise UsageError(f"A value of {count} bytes cannot be followed.", "Ask for 1 to 8.")
    pieces = await pieces_of(timeline, address, count, space)
    if len(pieces) > 1:
        raise UsageError(
            f"The {count} bytes from {address:#x} cross a page.", "Ask for those of one page."
        )
    walk = _Walk(timeline)
    content = await timeline.read(pieces[0].physical, count, "physical")
    return await walk.back(Memory(pieces[0].physical, content), most)


async def origin_of_register(timeline: Timeline, name: str, *, most: int = MOST) -> list[Step]:
    """Return the way back of the value in a register at the cursor, as `origin` does.

    `name` is gdb's, or that of a part, as `eax`. Raises UsageError for what is none, and for
    the pc, which every instruction sets.
    """
    walk = _Walk(timeline)
    part = walk.dataflow.slice_of(name)
    registers = {**await timeline.registers()}
    registers.pop(timeline.view.isa.pc)
    if _value_of(part.register, registers) is None:
        raise UsageError(
            f"{name!r} cannot be followed.", "Name a register as gdb does; the pc has no origin."
        )
    return await walk.back(part, most)


class _Walk:
    """A walk back through a recording, with the stretch it is in."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.dataflow = dataflow_for(timeline.recording.manifest.machine.target)
        self._stretch: Stretch | None = None

    async def back(self, place: Place | None, most: int) -> list[Step]:
        """Return up to `most` steps from `place` at the cursor, the newest first."""
        before, steps = self._timeline.position, list[Step]()
        while place and len(steps) < most:
            if isinstance(place, Memory):
                step, place = await self.stored(place, before)
            else:
                step, place = await self.set(place, before)
            before = step.position
            steps.append(step)
        return steps

    async def stored(self, memory: Memory, before: int) -> tuple[Step, Place | None]:
        """Return who stored what is in `memory` at `before`, and where that was before."""
        stretch = self._stretch
        record = _store(stretch, memory, before) if stretch else None
        if stretch is None or record is None:
            at = await self._last_store(memory, before)
            if at is not None:
                stretch = self._stretch = await self._ending_at(at + 1)
                record = _store(stretch, memory, at + 1)
        if stretch is None or record is None:
            return await self._by_others(memory, before), None
        position, pc = int(record["position"]), int(record["pc"])
        if is_pushed(record):
            what = f"an interrupt or exception pushed {memory}"
            return Step(position, "delivery", pc, "", what), None
        insn = await stretch.instruction(position)
        flow = _part(stretch, self.dataflow.stored(insn), record, memory) if insn else None
        if flow is None:
            text = _text(insn) if insn else ""
            return Step(position, "unknown", pc, text, f"something wrote {memory}"), None
        return _follow(stretch, position, insn, "store", flow, str(memory))

    async def _last_store(self, memory: Memory, before: int) -> int | None:
        """Return where the last store to `memory` is; None where something else came later.

        Where the index has a gap on the way, `last_store` leaves it open.
        """
        piece = Piece(memory.physical, len(memory.content))
        if hit := await last_store(self._timeline, [piece], before):
            return hit.position
        await self._timeline.seek(before)
        found = await last_write(self._timeline, piece.physical, piece.count, "physical")
        return found.position if found and found.pc is not None else None

    async def _by_others(self, memory: Memory, before: int) -> Step:
        """Return who wrote what is in `memory` where it was no store."""
        await self._timeline.seek(before)
        found = await last_write(self._timeline, memory.physical, len(memory.content), "physical")
        if found is None:
            return Step(0, "untouched", None, "", f"{memory} as the machine began")
        if found.pc is not None:
            return Step(found.position, "unknown", found.pc, "", f"something wrote {memory}")
        who = _events(self._timeline.recording, found.position)
        return Step(found.position, "device", None, "", f"{who} wrote {memory}")

    async def set(self, part: Slice, before: int) -> tuple[Step, Place | None]:
        """Return what set a register to what it is at `before`, and where that was before."""
        lowest, span, name = max(0, before - PATIENCE), FIRST_TRACE, part.register
        while before > lowest:
            stretch = self._stretch
            if stretch is None or before not in stretch:
                stretch = self._stretch = await self._ending_at(before, span)
            found = await stretch.last_writer(part, before)
            if found is None:
                before, span = stretch.trace.start, LONGEST
                continue
            position, written = found
            insn = await stretch.instruction(position)
            if not written.covers(part):
                return Step(
                    position, "computed", insn.address, _text(insn), f"part of {name}"
                ), None
            source = self.dataflow.source(insn, name)
            if not source.is_maybe or await self._changed(name, position):
                flow = Flow(source, part.first - written.first, part.count)
                return _follow(stretch, position, insn, "copy", flow, name)
            before = position
        if before:
            return Step(before, "unknown", None, "", f"{name} as it was long before"), None
        return Step(0, "untouched", None, "", f"{name} as the machine began"), None

    async def _changed(self, register: str, position: int) -> bool:
        """Whether the instruction at `position` changed a register."""
        values = []
        for at in (position, position + 1):
            await self._timeline.seek(at)
            values.append(_value_of(register, await self._timeline.registers()))
        return values[0] != values[1]

    async def _ending_at(self, stop: int, span: int = FIRST_TRACE) -> Stretch:
        return await Stretch.ending_at(self._timeline, self.dataflow, stop, span)


def _value_of(register: str, registers: Mapping[str, int]) -> int | None:
    """Return what a register holds, which is one of 32 bits on i386; None where there is none."""
    return registers.get(register, registers.get(f"e{register[1:]}"))


def _store(stretch: Stretch, memory: Memory, before: int) -> Any | None:
    """Return the last store to `memory` if a stretch has it and it is what is there."""
    if before not in stretch:
        return None
    record = stretch.trace.last_store(memory.physical, len(memory.content), before)
    if record is None:
        return None
    hit = hit_of(record)
    for place, byte in zip(hit.placed, hit.data or b"", strict=True):
        at = place - memory.physical
        if 0 <= at < len(memory.content) and memory.content[at] != byte:
            return None  # something that is no instruction wrote later
    return record


def _part(stretch: Stretch, sources: Sequence[Source], record: Any, memory: Memory) -> Flow | None:
    """Return what those bytes are that the store of `record` left in `memory`."""
    stores = stretch.trace.accesses_at(int(record["position"]), stores=True)
    stores = stores[~is_pushed(stores)]
    size = int(stores["size"].sum()) // len(sources)
    inside = range(memory.physical, memory.physical + len(memory.content))
    numbers = [number for number, at in enumerate(hit_of(record).placed) if at in inside]
    at = int(record["vaddr"] - stores["vaddr"].min()) + numbers[0]
    if at >= size * len(sources):
        return None  # not one after the other
    return Flow(sources[at // size], at % size, min(len(numbers), size - at % size))


def _follow(
    stretch: Stretch, position: int, insn: Any, how: Moved, flow: Flow, what: str
) -> tuple[Step, Place | None]:
    """Return the step that an instruction is, and what is to be followed from there."""
    place: Place | None = None
    kind: Kind = how
    match flow.source.kind:
        case "load":
            place, end, said = _loaded(stretch, position, flow)
            kind = "load" if how == "copy" else how
        case "copy":
            place, end, said = _copied(flow)
        case "computed":
            end, said = (
                "computed",
                f"computed from {', '.join(flow.source.reads) or 'nothing else'}",
            )
        case "constant":
            end, said = "constant", "a constant"
        case "input":
            end, said = "input", "input"
    step = Step(position, kind if place else end, insn.address, _text(insn), f"{what} is {said}")
    return step, place


def _copied(flow: Flow) -> tuple[Slice | None, Ended, str]:
    """Return which register a copy is of, how the way ends where of none, and it in words."""
    copied = flow.source.copied
    if copied is None or flow.first >= copied.count:
        return None, "constant", _FILLED
    count = min(flow.count, copied.count - flow.first)
    place = Slice(copied.register, copied.first + flow.first, count)
    return place, "constant", f"from {copied.register}"


def _loaded(stretch: Stretch, position: int, flow: Flow) -> tuple[Memory | None, Ended, str]:
    """Return which memory a load was of, how the way ends where of none, and it in words."""
    loads = stretch.trace.accesses_at(position, stores=False)
    size = int(loads["size"].sum()) // flow.source.parts
    if not size:
        return None, "unknown", "from memory that QEMU did not tell"
    if flow.first >= size:
        return None, "constant", _FILLED
    at = int(loads["vaddr"].min()) + flow.source.index * size + flow.first
    load = loads[(loads["vaddr"] <= at) & (at < loads["vaddr"] + loads["size"])][0]
    hit, skipped = hit_of(load), at - int(load["vaddr"])
    physical = hit.placed[skipped]
    if is_of_device(load):
        return None, "input", f"input from a device at physical {physical:#x}"
    # Memory that is followed lies in one page.
    count = min(flow.count, size - flow.first, PAGE_BYTES - physical % PAGE_BYTES)
    memory = Memory(physical, (hit.data or b"")[skipped : skipped + count])
    return memory, "unknown", f"from {memory}"


_FILLED: Final = "filled up with the sign or zeros"


def _text(insn: Any) -> str:
    return f"{insn.mnemonic} {insn.op_str}".strip()


def _events(recording: Recording, position: int) -> str:
    """Say what came from outside between `position` and the next."""
    found: dict[str, None] = {}
    for batch in recording.log().batches():
        here = batch.kind[(batch.position == position) | (batch.position == position + 1)]
        found |= {Event(kind).name.lower(): None for kind in here.tolist()}
    return f"a device or a page walk ({', '.join(found) or 'no event in the log'})"
