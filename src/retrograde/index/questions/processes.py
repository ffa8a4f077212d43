"""The processes of a Linux guest on x86_64: what each ran in user mode, thread by thread.

Nothing is assumed of the kernel's structures: functions of its own that get a task say all.

start_thread(regs, ip, sp)   a program is about to begin, in the task that is current
__switch_to_asm(prev, next)  which task is current from there on
wake_up_new_task(task)       the current task has made another, a thread or a process
do_exit(code)                the current task is about to end

These are calls from one file of the kernel's source to another, which no compiler takes away. A
process is an address space from a program's beginning on, with the tasks that were made by others
of it and run in it. A child that began no program of its own is no process of its own here.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrograde.errors import UsageError
from retrograde.index.symbols.symbols import build_symbols
from retrograde.index.tables.store import IndexStore
from retrograde.recording.bundle import Recording
from retrograde.timeline.paging import LINUX_SPACE
from retrograde.timeline.timeline import Timeline

Thread = tuple[int, ...]
"""Which child of which: () is the first of a process, (2, 0) the first child of its third."""

_BEGINS: Final = ("start_thread", "compat_start_thread")
_SWITCHES: Final = ("__switch_to_asm",)
_BIRTHS: Final = ("wake_up_new_task",)
_ENDS: Final = ("do_exit",)
_TASK: Final = "init_task"
_NAME_OF_IT: Final = b"swapper"
NAME_BYTES: Final = 15
"""Characters that Linux keeps of a process's name (TASK_COMM_LEN)."""
_USER: Final = 3


class Program(NamedTuple):
    """A program that began in a process.

    It began at `position`, a call in the kernel, in the task at the address `task`; `entry` is
    the address of its first instruction, `sp` the stack pointer there.
    """

    position: int
    task: int
    space: int
    entry: int
    sp: int


class Span(NamedTuple):
    """Instructions of one thread in user mode: at positions from `start` to before `stop`."""

    thread: Thread
    start: int
    stop: int


@dataclass(frozen=True)
class Ran:
    """What a process ran: `spans` in order, and which threads `ended`; others are cut off."""

    program: Program
    spans: Sequence[Span]
    ended: frozenset[Thread]


@dataclass(frozen=True)
class Named:
    """A program and the name of its process, as `ps` shows it."""

    name: str
    program: Program


class Processes:
    """The processes of one recording that has its whole index."""

    def __init__(self, recording: Recording) -> None:
        """Read the index; raises UsageError where that does not tell the processes."""
        self._recording = recording
        target = recording.manifest.machine.target
        if target != "x86_64":
            raise UsageError(
                f"{recording.name} is a recording of {target}: processes are told on x86_64 only.",
                "Without --process all that the machine ran is compared.",
            )
        store = IndexStore(recording)
        if not (store.covers("calls", recording.end) and store.covers("context", recording.end)):
            raise UsageError(
                f"{recording.name} has no index, which tells the processes.",
                f"Run: retrograde index {recording.path}",
            )
        store.require_whole("calls", "context")
        build_symbols(store, recording)
        with contextlib.closing(store.connect(("calls", "context", "symbols"))) as connection:
            self._read(connection)

    def _read(self, connection: Any) -> None:
        found = connection.execute(
            "SELECT name, address, size FROM symbols WHERE module IS NULL AND name IN ?",
            [[*_BEGINS, *_SWITCHES, *_BIRTHS, *_ENDS, _TASK]],
        ).fetchall()
        places: defaultdict[str, list[int]] = defaultdict(list)
        for name, address, _ in found:
            places[name].append(address)
        for name in (_BEGINS[0], *_SWITCHES, *_BIRTHS, *_ENDS, _TASK):
            if name not in places:
                raise UsageError(
                    f"{self._recording.name} is of no Linux whose processes are known: its kernel "
                    f"tells no {name}.",
                    "Without --process all that the machine ran is compared.",
                )
        sizes = {name: size for name, _, size in found}
        self.task_of_idle = places[_TASK][0], sizes[_TASK]

        def calls(names: Sequence[str], what: str) -> Any:
            targets = [address for name in names for address in places[name]]
            return connection.execute(
                f"SELECT position, {what} FROM calls WHERE target IN ? ORDER BY position",
                [targets],
            ).fetchall()

        self._tasks = Tasks(calls(_SWITCHES, "arg1"), calls(_BIRTHS, "arg0, space"))
        self.programs = [
            Program(position, self._tasks.current(position), space & LINUX_SPACE, entry, sp)
            for position, space, entry, sp in calls(_BEGINS, "space, arg1, arg2")
        ]
        ends = [self._tasks.life(position) for position, _ in calls(_ENDS, "arg0")]
        self._ended = {*ends}
        self._spans = _user_spans(connection, self._recording.end)

    def ran(self, program: Program) -> Ran:
        """Return what the process of `program` ran in user mode."""
        starts, stops, spaces = self._spans
        mine = np.flatnonzero((spaces == program.space) & (starts > program.position))
        family = _Family(self._tasks, program, self.programs)
        found = []
        for start, stop in zip(starts[mine].tolist(), stops[mine].tolist(), strict=True):
            thread = family.thread_at(start)
            if thread is not None:
                found.append(Span(thread, start, stop))
        ended = {thread for life, thread in family.threads() if family.left(life)}
        ended |= {thread for life, thread in family.threads() if life in self._ended}
        return Ran(program, found, frozenset(ended))

    async def named(self, timeline: Timeline) -> list[Named]:
        """Return all programs with the names of their processes; the cursor moves."""
        address, size = self.task_of_idle
        if not self.programs:
            return []
        await timeline.seek(self.programs[0].position)
        offset = (await timeline.read(address, size)).find(_NAME_OF_IT)
        if offset < 0:
            raise UsageError(f"The names of the processes of {self._recording.name} are not known.")
        found = []
        for program in self.programs:
            await timeline.seek(program.position)
            name = await timeline.read(program.task + offset, NAME_BYTES + 1)
            found.append(Named(name.split(b"\0")[0].decode(errors="replace"), program))
        return found


class Tasks:
    """Which task was current when, and who made it; rows of positions and addresses, in order."""

    def __init__(
        self, switches: Sequence[tuple[int, int]], births: Sequence[tuple[int, int, int]]
    ) -> None:
        """Switches have the task that comes, births the task made and its maker's space."""
        self._at = np.array([at for at, _ in switches], np.int64)
        self._next = [task for _, task in switches]
        self._births: defaultdict[int, list[_Birth]] = defaultdict(list)
        children: defaultdict[Life, int] = defaultdict(int)
        for at, task, space in births:
            maker = self.life(at)
            self._births[task].append(_Birth(at, space & LINUX_SPACE, children[maker]))
            children[maker] += 1

    def current(self, position: int) -> int:
        """Return the task that is current at a position."""
        before = int(np.searchsorted(self._at, position)) - 1
        return self._next[before] if before >= 0 else 0

    def life(self, position: int) -> Life:
        """Return the current task and where it was made: its memory may be used again."""
        task = self.current(position)
        before = [birth.position for birth in self._births[task] if birth.position < position]
        return Life(task, before[-1] if before else 0)

    def birth(self, life: Life) -> _Birth | None:
        """Return how a task was made; None: it was there from the start."""
        births = self._births[life.task]
        return next((birth for birth in births if birth.position == life.made), None)


class Life(NamedTuple):
    """A task, by its address and the position at which it was made."""

    task: int
    made: int


class _Birth(NamedTuple):
    """A task was made at a position, in an address space, after `number` others of its maker."""

    position: int
    space: int
    number: int


class _Family:
    """The threads of the process of a program; `begun` are all programs."""

    def __init__(self, tasks: Tasks, program: Program, begun: Sequence[Program]) -> None:
        self._tasks = tasks
        self._program = program
        self._first = Life(program.task, tasks.life(program.position).made)
        self._begun: defaultdict[int, list[int]] = defaultdict(list)
        for one in begun:
            self._begun[one.task].append(one.position)
        self._known: dict[Life, Thread | None] = {}

    def thread_at(self, position: int) -> Thread | None:
        """Return which thread of the process runs at a position in its space; None: none."""
        life = self._tasks.life(position)
        if life not in self._known:
            self._known[life] = self._of(life)
        after = self.left(life)
        return None if after and after < position else self._known[life]

    def left(self, life: Life) -> int | None:
        """Return where a thread began another program, if it did."""
        since = self._program.position if life == self._first else life.made
        lives = (at for at in self._begun[life.task] if self._tasks.life(at) == life)
        return next((at for at in lives if at > since), None)

    def threads(self) -> list[tuple[Life, Thread]]:
        """Return the threads that were met."""
        return [(life, thread) for life, thread in self._known.items() if thread is not None]

    def _of(self, life: Life) -> Thread | None:
        if life == self._first:
            return ()
        birth = self._tasks.birth(life)
        if birth is None or birth.position <= self._program.position:
            return None
        # Where a child got a space of its own, its own children are none of this process.
        maker = self.thread_at(birth.position) if birth.space == self._program.space else None
        return None if maker is None else (*maker, birth.number)


def _user_spans(
    connection: Any, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Return where user mode begins and ends, and the address space it is in."""

    def changes(kind: str) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        rows = connection.execute(
            "SELECT position, value FROM context WHERE kind = ? ORDER BY position", [kind]
        ).fetchnumpy()
        position, value = (np.asarray(rows[name]) for name in ("position", "value"))
        return position.astype(np.int64), value.astype(np.uint64)

    at, level = changes("privilege")
    moved, space = changes("space")
    user = np.flatnonzero(level == _USER)
    starts, stops = at[user], np.append(at, end)[user + 1]
    which = np.searchsorted(moved, starts, side="right") - 1
    spaces = np.where(which >= 0, space[which], 0) if len(space) else np.zeros(len(user), np.uint64)
    return starts, stops, spaces & np.uint64(LINUX_SPACE)
