"""What a script or notebook starts with; see `retrograde` for the names.

The recording here is `recording.bundle`'s with questions added that its own layer, which
runs nothing, cannot answer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from retrograde.portal import LoopThread
from retrograde.recording import bundle

if TYPE_CHECKING:
    from retrograde.index.compare.processdiff import Comparison, Past
    from retrograde.index.database import Answer
    from retrograde.index.questions.origin import Step
    from retrograde.index.questions.writes import Store
    from retrograde.index.tables.views import Call
    from retrograde.investigation.investigation import Investigation
    from retrograde.machine.screen import Picture
    from retrograde.timeline.lastwrite import Write
    from retrograde.timeline.reading import Space
    from retrograde.timeline.sync import SyncTimeline
    from retrograde.timeline.timeline import Timeline

Result = TypeVar("Result")


class Recording(bundle.Recording):
    """A recording on disk, to be asked. Made by `retrograde.open` and `retrograde.record`.

    What a question needs, QEMU and a database, is kept for the next one until `close`, or
    the end of a `with`. SQL needs the extra `retrograde[index]` and raises EnvironmentLacks
    without it.
    """

    _opened: _Opened | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what questions and timelines have opened. Safe to repeat.

        The next question opens it again; a timeline is of no use afterwards.
        """
        opened, self._opened = self._opened, None
        if opened:
            opened.close()

    def timeline(self, at: str | int = 0) -> SyncTimeline:
        """Put a cursor of its own at the position `at`; close it at the end.

        It needs no `await`. The first one makes checkpoints, which takes a replay; all share
        the same processes, and many may be used at once. Raises as `Timeline.open` does.
        """
        from retrograde.timeline.sync import SyncTimeline

        opened = self._open()
        timeline = opened.loop.run(opened.investigation.timeline(at))
        return SyncTimeline(timeline, opened.loop, kept=opened)

    @contextlib.asynccontextmanager
    async def open_async(self, at: str | int = 0) -> AsyncIterator[Timeline]:
        """Put a cursor at the position `at`, for `async with`, with processes of its own."""
        from retrograde.investigation.investigation import Investigation

        async with Investigation(self._for_what_is_kept) as opened, await opened.timeline(at) as it:
            yield it

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Ask in DuckDB's SQL; `parameters` stand for its question marks.

        Iterate over the answer for rows, or take it whole: `all()`, `arrow()`, `pandas()`,
        `polars()`. The tables are listed in the reference. Raises UsageError with DuckDB's
        message for what it cannot answer.
        """
        return self._open().investigation.tables().query(sql, parameters)

    def calls(self, name: str) -> list[Call]:
        """Return the rows of `functions` for calls of the function `name`, in order.

        Raises UsageError before `retrograde index` has been run.
        """
        return self._open().investigation.calls(name)

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
        return self._ask(lambda one: one.writes(address, count, space, at=at))

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
        return self._ask(lambda one: one.last_write(address, count, space, at=at))

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
        return self._ask(lambda one: one.origin(where, count, space, at=at, most=most))

    def screen(self, *, at: str | int = "end") -> Picture:
        """Return what was on the guest's screen at the position `at`.

        A `retrograde.machine.screen.Picture`: numpy's pixels, and `png()`. Raises UsageError
        where the machine has no screen.
        """
        return self._ask(lambda one: one.screen(at))

    def compare_process(
        self, other: bundle.Recording, name: str, *, past: Collection[Past] = ()
    ) -> Comparison:
        """Return where what the process `name` did here parts from what it did in `other`.

        A `retrograde.index.compare.processdiff.Comparison`. Both must be indexed recordings of
        Linux on x86_64. What the host's clock made differ is passed over; with "inputs" in `past`
        also those by other inputs, with "threads" those by what other threads wrote. Raises
        UsageError where there is no such process, or several: `name#2` is the second.
        """
        from retrograde.investigation.investigation import Investigation

        async def ask(one: Investigation) -> Comparison:
            async with Investigation(bundle.Recording(other.folder, other.manifest)) as theirs:
                return await one.compare_process(theirs, name, past=past)

        return self._ask(ask)

    @functools.cached_property
    def _for_what_is_kept(self) -> bundle.Recording:
        """The recording without us, so that a forgotten one of us ends what it has opened."""
        return bundle.Recording(self.folder, self.manifest)

    def _ask(self, question: Callable[[Investigation], Coroutine[Any, Any, Result]]) -> Result:
        opened = self._open()
        return opened.loop.run(question(opened.investigation))

    def _open(self) -> _Opened:
        if self._opened is None:
            self._opened = _Opened(self._for_what_is_kept)
        return self._opened


class _Opened:
    """An investigation and the loop it lives in; ended when nobody has it any more."""

    def __init__(self, recording: bundle.Recording) -> None:
        from retrograde.investigation.investigation import Investigation

        self.loop = LoopThread()
        self.investigation = Investigation(recording)
        self._forgotten = weakref.finalize(self, self.loop.abandon, self.investigation.close)

    def close(self) -> None:
        """End processes, database and loop."""
        if self._forgotten.detach():
            try:
                self.loop.run(self.investigation.close())
            finally:
                self.loop.close()


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
