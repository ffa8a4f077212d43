"""What a script or notebook starts with; see `retrograde` for the names.

The recording here is `recording.bundle`'s with questions added that its own layer, which
runs nothing, cannot answer.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from retrograde.errors import UsageError
from retrograde.portal import LoopThread
from retrograde.recording import bundle

if TYPE_CHECKING:
    from retrograde.index.database import Answer, Database
    from retrograde.index.hints import IndexHints
    from retrograde.index.origin import Step
    from retrograde.index.views import Call
    from retrograde.index.writes import Store
    from retrograde.timeline.lastwrite import Write
    from retrograde.timeline.reading import Space
    from retrograde.timeline.screen import Picture
    from retrograde.timeline.sync import SyncTimeline
    from retrograde.timeline.timeline import Timeline

Result = TypeVar("Result")


class Recording(bundle.Recording):
    """A recording on disk, to be asked. Made by `retrograde.open` and `retrograde.record`.

    What a question needs, QEMU and a database, is kept for the next one until `close`, or
    the end of a `with`. SQL needs the extra `retrograde[index]` and raises EnvironmentLacks
    without it.
    """

    _database: Database | None = None
    _asked: SyncTimeline | None = None
    _hints: IndexHints | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what questions have opened. Safe to repeat; the next question opens it again."""
        asked, database = self._asked, self._database
        self._asked = self._database = self._hints = None
        if database:
            database.close()
        if asked:
            asked.close()

    def timeline(self, at: str | int = 0) -> SyncTimeline:
        """Open a timeline of its own with the cursor at the position `at`; close it at the end.

        It needs no `await`. The first one makes checkpoints, which takes a replay. Raises as
        `Timeline.open` does.
        """
        from retrograde.timeline.sync import open_timeline

        timeline = open_timeline(self._for_what_is_kept, at=at)
        timeline.hints = self._known()
        return timeline

    @contextlib.asynccontextmanager
    async def open_async(self, at: str | int = 0) -> AsyncIterator[Timeline]:
        """Open a timeline of its own for `async with`; else as `timeline`."""
        import asyncio

        from retrograde.timeline.timeline import Timeline

        async with await Timeline.open(self._for_what_is_kept, at=at) as timeline:
            timeline.hints = await asyncio.to_thread(self._known)
            yield timeline

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Ask in DuckDB's SQL; `parameters` stand for its question marks.

        Iterate over the answer for rows, or take it whole: `all()`, `arrow()`, `pandas()`,
        `polars()`. The tables are listed in the reference. Raises UsageError with DuckDB's
        message for what it cannot answer.
        """
        return self._tables().query(sql, parameters)

    def calls(self, name: str) -> list[Call]:
        """Return the rows of `functions` for calls of the function `name`, in order.

        Raises UsageError before `retrograde index` has been run.
        """
        from retrograde.index.views import Call

        database = self._tables()
        if not database.store.done("calls"):
            raise UsageError(
                f"The calls of {self.path} have not been collected.",
                f"Run: retrograde index {self.path}",
            )
        rows = database.query("FROM functions WHERE name = ? ORDER BY position", [name])
        return [Call._make(row) for row in rows]

    def writes(
        self,
        address: int,
        count: int = 8,
        *,
        at: str | int = "end",
        space: Space = "virtual",
    ) -> list[Store]:
        """Return all stores to any of `count` bytes before the position `at`, in order.

        As rows of the table `writes`. The bytes are those that are at `address` at that
        position. Replays what the index does not rule out, all where there is none.
        """
        from retrograde.index.writes import row_of, stores_to

        async def ask(timeline: Timeline) -> list[Store]:
            return [row_of(hit) for hit in await stores_to(timeline, address, count, space)]

        return self._ask(ask, at)

    def last_write(
        self,
        address: int,
        count: int = 8,
        *,
        at: str | int = "end",
        space: Space = "virtual",
    ) -> Write | None:
        """Return who wrote any of `count` bytes last before the position `at`, None: nobody.

        Replays as `writes` does.
        """

        async def ask(timeline: Timeline) -> Write | None:
            return await timeline.last_write(address, count, space)

        return self._ask(ask, at)

    def origin(
        self,
        where: int | str,
        count: int = 8,
        *,
        at: str | int = "end",
        space: Space = "virtual",
        most: int = 50,
    ) -> list[Step]:
        """Return the way back of a value as it is at the position `at`.

        It is in 1 to 8 bytes from the address `where`, or in the register of that name. The
        newest of at most `most` steps comes first.
        """
        from retrograde.index.origin import origin, origin_of_register

        async def ask(timeline: Timeline) -> list[Step]:
            if isinstance(where, str):
                return await origin_of_register(timeline, where, most=most)
            return await origin(timeline, where, count, space, most=most)

        return self._ask(ask, at)

    def screen(self, *, at: str | int = "end") -> Picture:
        """Return what was on the guest's screen at the position `at`.

        A `retrograde.timeline.screen.Picture`: numpy's pixels, and `png()`. Raises UsageError
        where the machine has no screen.
        """

        async def ask(timeline: Timeline) -> Picture:
            return await timeline.screen()

        return self._ask(ask, at)

    @functools.cached_property
    def _for_what_is_kept(self) -> bundle.Recording:
        """The recording without us, so that a forgotten one of us ends what it has opened."""
        return bundle.Recording(self.folder, self.manifest)

    def _ask(
        self, question: Callable[[Timeline], Coroutine[Any, Any, Result]], at: str | int
    ) -> Result:
        """Ask the timeline that is kept for questions, with its cursor at `at`."""
        if self._asked is None:
            self._asked = self.timeline(at)
        else:
            self._asked.seek(at)
        self._asked.hints = self._known()
        return self._asked.ask(question)

    def _known(self) -> IndexHints | None:
        """Return what the index knows, read anew when that on disk has changed."""
        from retrograde.index.hints import IndexHints

        if not (self._hints and self._hints.is_current):
            self._hints = IndexHints.of(self._for_what_is_kept)
        return self._hints

    def _tables(self) -> Database:
        """Return the database, opened anew when the index on disk has changed.

        Kept open because of what it knows of the files: looking that up takes longer than
        most questions.
        """
        from retrograde.index.database import Database

        if not (self._database and self._database.is_current):
            if self._database:
                self._database.close()
            self._database = Database(self._for_what_is_kept)
        return self._database


def open(path: str | os.PathLike[str]) -> Recording:  # noqa: A001 - retrograde.open
    """Open the recording at `path`; see `Recording.open`."""
    return Recording.open(path)


def record(
    output: str | os.PathLike[str],
    arguments: Sequence[str],
    *,
    target: str = "x86_64",
    qemu: str | None = None,
    timeout: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Record the machine that `qemu-system-TARGET ARGUMENTS` would run.

    Returns when the guest ends or after `timeout` seconds; Ctrl-C ends the recording,
    keeps it and raises KeyboardInterrupt. `qemu` names the program (default:
    qemu-system-TARGET on PATH). `progress` is told positions. Raises UsageError,
    EnvironmentLacks or QemuError, see `retrograde.errors`.
    """
    from retrograde.machine.recorder import record as record_machine

    recording = record_machine(
        os.fspath(output),
        list(arguments),
        target=target,
        program=qemu,
        timeout=timeout,
        progress=progress,
    )
    loop = LoopThread()
    try:
        made = loop.run(recording)
    finally:
        loop.close()
    return Recording(made.folder, made.manifest)
