"""What a script or notebook starts with; see `retrograde` for the names.

The recording here is `recording.bundle`'s with questions added that its own layer, which
runs nothing, cannot answer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from retrograde.errors import UsageError
from retrograde.recording import bundle

if TYPE_CHECKING:
    from retrograde.index.database import Answer, Database, Row
    from retrograde.index.origin import Step
    from retrograde.timeline.lastwrite import Write
    from retrograde.timeline.reading import Space
    from retrograde.timeline.screen import Picture
    from retrograde.timeline.timeline import Timeline

Result = TypeVar("Result")


class Recording(bundle.Recording):
    """A recording on disk, to be asked. Made by `retrograde.open` and `retrograde.record`.

    Questions need the extra `retrograde[index]` and raise EnvironmentLacks without it.
    """

    _opened: Database | None = None

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Ask in DuckDB's SQL; `parameters` stand for its question marks.

        Iterate over the answer for tuples, or take it whole: `all()`, `arrow()`, `pandas()`,
        `polars()`. The tables are listed in the reference. Raises UsageError with DuckDB's
        message for what it cannot answer.
        """
        return self._database().query(sql, parameters)

    def calls(self, name: str) -> list[Row]:
        """Return the rows of `functions` for calls of the function `name`, in order.

        Raises UsageError before `retrograde index` has been run.
        """
        database = self._database()
        if not database.store.done("calls"):
            raise UsageError(
                f"The calls of {self.path} have not been collected.",
                f"Run: retrograde index {self.path}",
            )
        return database.query("FROM functions WHERE name = ? ORDER BY position", [name]).all()

    def writes(
        self, address: int, count: int = 8, *, at: str | int = "end", physical: bool = False
    ) -> list[Row]:
        """Return all stores to any of `count` bytes before the position `at`, in order.

        As rows of the table `writes`. The bytes are those that are at `address` at that
        position. Replays what the index does not rule out, all where there is none.
        """
        from retrograde.index.writes import row_of, stores_to

        async def ask(timeline: Timeline) -> list[Row]:
            found = await stores_to(timeline, address, count, _space(physical))
            return [row_of(hit) for hit in found]

        return self._ask(ask, at)

    def last_write(
        self, address: int, count: int = 8, *, at: str | int = "end", physical: bool = False
    ) -> Write | None:
        """Return who wrote any of `count` bytes last before the position `at`, None: nobody.

        Replays as `writes` does; see `retrograde.timeline.lastwrite.Write`.
        """
        from retrograde.timeline.lastwrite import last_write

        async def ask(timeline: Timeline) -> Write | None:
            return await last_write(timeline, address, count, _space(physical))

        return self._ask(ask, at)

    def origin(
        self,
        where: int | str,
        count: int = 8,
        *,
        at: str | int = "end",
        physical: bool = False,
        most: int = 50,
    ) -> list[Step]:
        """Return the way back of a value as it is at the position `at`.

        It is in 1 to 8 bytes from the address `where`, or in the register of that name. The
        newest of at most `most` steps comes first; see `retrograde.index.origin.Step`.
        """
        from retrograde.index.origin import origin, origin_of_register

        async def ask(timeline: Timeline) -> list[Step]:
            if isinstance(where, str):
                return await origin_of_register(timeline, where, most=most)
            return await origin(timeline, where, count, _space(physical), most=most)

        return self._ask(ask, at)

    def screen(self, *, at: str | int = "end") -> Picture:
        """Return what was on the guest's screen at the position `at`.

        A `retrograde.timeline.screen.Picture`: numpy's pixels, and `png()`. Raises UsageError
        where the machine has no screen.
        """

        async def ask(timeline: Timeline) -> Picture:
            return await timeline.screen()

        return self._ask(ask, at)

    def _ask(self, question: Callable[[Timeline], Awaitable[Result]], at: str | int) -> Result:
        """Ask a timeline with its cursor at `at`, which knows what the index knows."""
        from retrograde.index.hints import open_hinted

        async def ask() -> Result:
            async with await open_hinted(self, at=at) as timeline:
                return await question(timeline)

        return _run(ask())

    def _database(self) -> Database:
        """Return the database, opened anew when the index on disk has changed.

        Kept open because of what it knows of the files: looking that up takes longer than
        most questions.
        """
        from retrograde.index.database import Database

        if not (self._opened and self._opened.is_current):
            self._opened = Database(self)
        return self._opened


def _space(physical: bool) -> Space:
    return "physical" if physical else "virtual"


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

    made = _run(
        record_machine(
            os.fspath(output),
            list(arguments),
            target=target,
            program=qemu,
            timeout=timeout,
            progress=progress,
        )
    )
    return Recording(made.folder, made.manifest)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
