"""One opened recording and all that is known of it, for every front end.

::

    async with Investigation(recording) as seen:
        write = await seen.last_write(0xffffffff82a0c3c0, 8, at=recording.resolve("end"))
        async with await seen.timeline(at=write.position) as timeline:
            await timeline.registers()

The same question has the same answer in gdb, on the command line, in Python and in SQL, because
all ask here. What a question needs, processes or a database, is opened when it is first asked
and kept for the next one; what the index on disk has become meanwhile is taken notice of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

from retrograde.errors import UsageError
from retrograde.index.compare.processdiff import Comparison, Past, compare_processes
from retrograde.index.questions.hints import IndexHints
from retrograde.index.questions.origin import Step, origin, origin_of_register
from retrograde.index.questions.processes import Processes
from retrograde.index.questions.writes import Store, row_of, stores_to
from retrograde.index.symbols.symbols import Symbols, name_here
from retrograde.index.tables.views import Call
from retrograde.investigation.bookmarks import Bookmarks
from retrograde.machine.qemu import Qemu
from retrograde.machine.screen import Picture
from retrograde.recording.bundle import Recording
from retrograde.timeline.history import History
from retrograde.timeline.lastwrite import Write
from retrograde.timeline.reading import Space
from retrograde.timeline.timeline import Timeline

if TYPE_CHECKING:
    from retrograde.index.database import Answer, Database

Progress = Callable[[int], None]


class Investigation:
    """A recording opened for questions, of which many may be asked at once. Ended by `close`."""

    def __init__(
        self, recording: Recording, qemu: Qemu | None = None, *, progress: Progress | None = None
    ) -> None:
        """`qemu` is what replays, by default as `qemu_for` finds it.

        `progress` is told positions where checkpoints have to be made first.
        """
        self.recording = recording
        self._qemu = qemu
        self._progress = progress
        self._history: History | None = None
        self._hints: IndexHints | None = None
        self._database: Database | None = None
        self._symbols: Symbols | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what questions have opened, cursors included; the next one opens it again."""
        history, database = self._history, self._database
        self._history = self._hints = self._database = self._symbols = None
        if database:
            await asyncio.to_thread(database.close)
        if history:
            await history.close()

    @cached_property
    def bookmarks(self) -> Bookmarks:
        """Positions that somebody has named."""
        return Bookmarks(self.recording)

    async def history(self) -> History:
        """Return the history, which knows what the index knows now.

        The first time the recording gets checkpoints if it has none, which takes a replay.
        Raises as `History.open` does.
        """
        async with self._opening:
            if self._history is None:
                self._history = await History.open(
                    self.recording, self._qemu, progress=self._progress
                )
            if self._hints is None or not self._hints.is_current:
                known = self._hints
                self._hints = await asyncio.to_thread(IndexHints.of, self.recording)
                self._history.hints = self._hints
                if self._hints is not known:
                    self._symbols = None
            return self._history

    async def timeline(self, at: str | int = 0) -> Timeline:
        """Put a cursor for somebody who will walk at position expression `at`."""
        return await Timeline.on(await self.history(), at=at)

    async def last_write(
        self, address: int, count: int, space: Space = "virtual", *, at: str | int
    ) -> Write | None:
        """Return the last write to any of `count` bytes before `at`; None: there is none.

        By whatever: a store, a device or a page walk. Raises as `Timeline.last_write` does.
        """
        async with await self._look(at) as timeline:
            return await timeline.last_write(address, count, space)

    async def writes(
        self, address: int, count: int, space: Space = "virtual", *, at: str | int
    ) -> list[Store]:
        """Return all stores to any of `count` bytes before `at`, in order.

        The bytes are those that are at `address` at that position. Replays what the index
        does not rule out, all where there is none.
        """
        async with await self._look(at) as timeline:
            return [row_of(hit) for hit in await stores_to(timeline, address, count, space)]

    async def origin(
        self,
        where: int | str,
        count: int = 8,
        space: Space = "virtual",
        *,
        at: str | int,
        most: int,
    ) -> list[Step]:
        """Return the way back of a value as it is at `at`, the newest of `most` steps first.

        It is in `count` bytes from the address `where`, or in the register of that name.
        """
        async with await self._look(at) as timeline:
            if isinstance(where, str):
                return await origin_of_register(timeline, where, most=most)
            return await origin(timeline, where, count, space, most=most)

    async def screen(self, at: str | int) -> Picture:
        """Return what was on the guest's screen; UsageError where the machine has none."""
        async with await self._look(at) as timeline:
            return await timeline.screen()

    async def compare_process(
        self,
        other: Investigation,
        name: str,
        *,
        past: Collection[Past] = (),
        progress: Callable[[str], None] = lambda _text: None,
    ) -> Comparison:
        """Return where what a process did here parts from what it did in another recording.

        See `compare_processes`; `progress` is told in words what is being done.
        """
        progress("reading the index")
        ours, theirs = [await asyncio.to_thread(Processes, one.recording) for one in (self, other)]
        async with await self._look(0) as here, await other._look(0) as there:
            return await compare_processes(
                (ours, theirs), (here, there), name, past=past, progress=progress
            )

    async def name(self, pc: int, position: int) -> str | None:
        """Return the name, as in `function+0x12`, of the code at `pc` as it is at a position."""
        if (symbols := self._symbols) is None:
            symbols = self._symbols = await asyncio.to_thread(Symbols.of, self.recording)
        found = symbols.lookup(pc)
        if found or not symbols.programs:
            return found
        # Of an access in a program that several processes share, pc may be another's (CF_PCREL):
        # what runs there is asked.
        async with await self._look(position) as timeline:
            return await name_here(timeline, symbols)

    async def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Ask in SQL; see `Database.query`. Taking the rows waits for them."""
        return await asyncio.to_thread(lambda: self.tables().query(sql, parameters))

    def calls(self, name: str) -> list[Call]:
        """Return the calls of the function `name`, in order; waits for them.

        Raises UsageError where they were not collected.
        """
        tables = self.tables()
        if not tables.store.done("calls"):
            raise UsageError(
                f"The calls of {self.recording.path} have not been collected.",
                f"Run: retrograde index {self.recording.path}",
            )
        rows = tables.query("FROM functions WHERE name = ? ORDER BY position", [name])
        return [Call._make(row) for row in rows]

    def tables(self) -> Database:
        """Return the database, opened anew when the index on disk has changed; waits for that.

        Kept open because of what it knows of the files: looking that up takes longer than
        most questions. Raises EnvironmentLacks without the extra `retrograde[index]`.
        """
        from retrograde.index.database import Database

        if not (self._database and self._database.is_current):
            if self._database:
                self._database.close()
            self._database = Database(self.recording)
        return self._database

    async def _look(self, at: str | int) -> Timeline:
        """Put a cursor at `at` for one question, which will not walk."""
        return await Timeline.on(await self.history(), at=at, walks=False)
