"""The timeline for scripts and notebooks: the same names, without `await`.

::

    with retrograde.open("boot.retro").timeline(at="50%") as timeline:
        hit = timeline.last_store(0xffffffff82a0c3c0, 8)
        timeline.seek(hit.position)
        timeline.registers()["rip"]

An event loop of its own runs in a thread, so this works where a loop runs already, as in
a notebook. Ctrl-C cancels the operation under way: the timeline stays usable, with the
cursor where it was or on the way.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.gdb.targetdesc import RegisterValues
from retrograde.machine.probe.request import Access, Check
from retrograde.machine.qemu import Qemu
from retrograde.machine.screen import Picture
from retrograde.machine.traps import Trap
from retrograde.portal import LoopThread
from retrograde.recording.bundle import Recording
from retrograde.timeline.hints import Hints
from retrograde.timeline.lastwrite import Write
from retrograde.timeline.search import Hit, Stops
from retrograde.timeline.stops import Conditions
from retrograde.timeline.survey import DEFAULT_BUDGET
from retrograde.timeline.timeline import Space, Timeline
from retrograde.timeline.trace import Trace

Progress = Callable[[int], None]
Result = TypeVar("Result")


def open_timeline(
    recording: Recording | str | os.PathLike[str],
    qemu: Qemu | None = None,
    *,
    at: str | int = 0,
    replayers: int = 2,
    budget: int = DEFAULT_BUDGET,
    use_probe: bool = True,
    progress: Progress | None = None,
) -> SyncTimeline:
    """Open a timeline on a recording or the path of one; see `Timeline.open`."""
    if not isinstance(recording, Recording):
        recording = Recording.open(recording)
    loop = LoopThread()
    try:
        timeline = loop.run(
            Timeline.open(
                recording,
                qemu,
                at=at,
                replayers=replayers,
                budget=budget,
                use_probe=use_probe,
                progress=progress,
            )
        )
    except BaseException:
        loop.close()
        raise
    return SyncTimeline(timeline, loop)


class SyncTimeline:
    """A `Timeline` whose every method returns when it is done. Made by `open_timeline`."""

    def __init__(self, timeline: Timeline, loop: LoopThread, *, kept: object = None) -> None:
        """Move `timeline` in `loop`, which ends with it unless it is that of what is `kept`."""
        self._timeline = timeline
        self._loop = loop
        self._kept = kept
        leave = loop.leave if kept else loop.abandon
        self._forgotten = weakref.finalize(self, leave, timeline.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes. Safe to repeat; who forgets it has it done some time."""
        if self._forgotten.detach() and not self._loop.is_closed:
            self._loop.run(self._timeline.close())
            if not self._kept:
                self._loop.close()
            self._kept = None

    def ask(self, question: Callable[[Timeline], Coroutine[Any, Any, Result]]) -> Result:
        """Return what an asynchronous question to the timeline comes to."""
        return self._loop.run(question(self._timeline))

    @property
    def position(self) -> int:
        """Where the cursor is."""
        return self._timeline.position

    @property
    def end(self) -> int:
        """The last position."""
        return self._timeline.end

    @property
    def hints(self) -> Hints | None:
        """What lets searches skip what cannot match: an index (index.questions.hints)."""
        return self._timeline.hints

    @hints.setter
    def hints(self, hints: Hints | None) -> None:
        self._timeline.hints = hints

    @property
    def can_search(self) -> bool:
        """Whether break- and watchpoints can be looked for: the probe is there."""
        return self._timeline.can_search

    def resolve(self, expression: str | int) -> int:
        """Turn a position expression into a position; raises PositionError."""
        return self._timeline.resolve(expression)

    def seek(self, position: int | str) -> None:
        """Move the cursor to a position or position expression."""
        self._loop.run(self._timeline.seek(self.resolve(position)))

    def step(self, count: int = 1) -> None:
        """Move forward by `count` instructions."""
        self._loop.run(self._timeline.step(count))

    def step_back(self, count: int = 1) -> None:
        """Move back by `count` instructions."""
        self._loop.run(self._timeline.step_back(count))

    def run(self, stops: Stops | None = None, progress: Progress | None = None) -> Hit | None:
        """Run forward to the next of `stops`, or those set here, or to the end (None)."""
        return self._loop.run(self._timeline.run(stops, progress))

    def run_back(self, stops: Stops | None = None, progress: Progress | None = None) -> Hit | None:
        """Run backward to the last of `stops`, or those set here, or to the start (None)."""
        return self._loop.run(self._timeline.run_back(stops, progress))

    def run_to(self, pc: int, progress: Progress | None = None) -> Hit | None:
        """Run forward to the instruction at linear address `pc`; None if it never comes."""
        return self._loop.run(self._timeline.run_to(pc, progress))

    def finish(self) -> int | None:
        """Run forward out of the current function."""
        return self._loop.run(self._timeline.finish())

    def finish_back(self) -> int | None:
        """Run backward to the current function's call."""
        return self._loop.run(self._timeline.finish_back())

    def registers(self) -> RegisterValues:
        """Return all registers at the cursor, by name."""
        return self._loop.run(self._timeline.registers())

    def packet(self) -> bytes:
        """Return the registers at the cursor as QEMU's `g` packet, hex digits."""
        return self._loop.run(self._timeline.packet())

    def register(self, number: int) -> bytes:
        """Return any register by its number in the target description, as hex digits."""
        return self._loop.run(self._timeline.register(number))

    def pc(self) -> int:
        """Return the linear address of the next instruction."""
        return self._loop.run(self._timeline.pc())

    def read(self, address: int, count: int, space: Space = "virtual") -> bytes:
        """Return `count` bytes of memory at the cursor."""
        return self._loop.run(self._timeline.read(address, count, space))

    def digest(self) -> str:
        """Return a digest of all RAM at the cursor."""
        return self._loop.run(self._timeline.digest())

    def in_ram(self, look: Callable[[NDArray[np.uint8]], Result]) -> Result:
        """Return what `look`, in a thread of its own, finds in all RAM at the cursor, in place."""
        return self._loop.run(self._timeline.in_ram(look))

    def physical(self, address: int) -> int | None:
        """Return the physical address of a virtual one at the cursor; None if not mapped."""
        return self._loop.run(self._timeline.physical(address))

    def human(self, line: str) -> str:
        """Return what QEMU's human monitor says at the cursor; `line` must only look."""
        return self._loop.run(self._timeline.human(line))

    def screen(self) -> Picture:
        """Return what is on the guest's screen at the cursor; UsageError where it has none."""
        return self._loop.run(self._timeline.screen())

    def stored(self, position: int, address: int, count: int) -> bytes | None:
        """Return physical memory out of the checkpoint at `position`; None where it has none."""
        return self._timeline.stored(position, address, count)

    def physical_at(self, position: int, address: int, count: int) -> bytes:
        """Return physical memory at any position; the cursor stays where it is."""
        return self._loop.run(self._timeline.physical_at(position, address, count))

    def last_write(self, address: int, count: int = 1, space: Space = "virtual") -> Write | None:
        """Return the last write to any of `count` bytes before the cursor, by whatever."""
        return self._loop.run(self._timeline.last_write(address, count, space))

    def last_store(
        self,
        address: int,
        count: int = 1,
        space: Space = "virtual",
        before: int | None = None,
        after: int = 0,
    ) -> Hit | None:
        """Return the last store to any of `count` bytes before the cursor, or `before`."""
        return self._loop.run(self._timeline.last_store(address, count, space, before, after))

    def last_hit(self, stops: Stops, start: int, stop: int) -> Hit | None:
        """Return the last hit of `stops` at a position from `start` to before `stop`."""
        return self._loop.run(self._timeline.last_hit(stops, start, stop))

    def all_hits(self, stops: Stops, start: int, stop: int) -> list[Hit]:
        """Return all hits of `stops` at positions from `start` to before `stop`, in order."""
        return self._loop.run(self._timeline.all_hits(stops, start, stop))

    def newest_hits(self, stops: Stops, start: int, stop: int) -> tuple[list[Hit], bool]:
        """Return hits of `stops`, the newest if there are many, and whether they are all."""
        return self._loop.run(self._timeline.newest_hits(stops, start, stop))

    def trace(self, start: int, stop: int) -> Trace:
        """Return what happened at positions from `start` to before `stop`."""
        return self._loop.run(self._timeline.trace(start, stop))

    def taken(self) -> list[Trap]:
        """Return the interrupts and exceptions that were taken here, right before the position."""
        return self._loop.run(self._timeline.taken())

    def addresses(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return the instructions' addresses from `start` to before `stop`."""
        return self._loop.run(self._timeline.addresses(start, stop))

    def add_breakpoint(
        self, pc: int, conditions: Conditions = (), checks: Sequence[Check] = ()
    ) -> int:
        """Stop at the instruction at linear address `pc` if all conditions hold."""
        return self._timeline.add_breakpoint(pc, conditions, checks)

    def add_watchpoint(
        self, address: int, count: int, access: Access = "w", space: Space = "virtual"
    ) -> int:
        """Stop at accesses to `count` bytes from `address`."""
        return self._timeline.add_watchpoint(address, count, access, space)

    def remove(self, number: int) -> None:
        """Remove a break- or watchpoint."""
        self._timeline.remove(number)

    def hits(self, start: int, stop: int) -> list[Hit]:
        """Return all hits at positions from `start` to before `stop`, in order."""
        return self._loop.run(self._timeline.hits(start, stop))

    def write(self, *_what: object) -> NoReturn:
        """Refuse: there is no way to change the past."""
        self._timeline.write()
