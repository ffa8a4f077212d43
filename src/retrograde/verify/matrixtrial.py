"""One cell's trial, as a process of its own: `python -m retrograde.verify.matrixtrial`.

The subject comes as JSON on standard input; what was found goes line by line to standard
output, so that a trial that hangs or crashes has told all it knew. Files are made in
TMPDIR, which whoever starts the trial removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from retrograde.errors import (
    Divergence,
    EnvironmentLacks,
    InternalError,
    QemuError,
    RetrogradeError,
)
from retrograde.held import Scratch
from retrograde.machine.console import ConsolePipe
from retrograde.machine.probe.support import require_probe
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import quirks_named
from retrograde.machine.recorder import record
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts
from retrograde.timeline.timeline import Timeline
from retrograde.verify.matrixload import try_checkpoint
from retrograde.verify.matrixmodel import Began, Check, Found, Learned, Line, Outcome, Subject
from retrograde.verify.matrixmoves import SPAN, Moves
from retrograde.verify.randomly import compare_randomly

RECORD_SECONDS = 120.0
"""A guest that should end by itself is ended after this time."""

SEED = 1

Tell = Callable[[Line], object]
Finding = tuple[Outcome, str]


class Trial:
    """The checks of one cell, in order."""

    def __init__(self, subject: Subject, folder: Path, tell: Tell) -> None:
        self._subject = subject
        self._tell = tell
        self._path = folder / "cell.retro"
        self._qemu = Qemu.find(subject.target, subject.program)
        self._recording: Recording

    async def run(self) -> None:
        """Do all checks that can be done; those whose basis failed are left out."""
        if not await self._check("record", self._record):
            return
        manifest = self._recording.manifest
        has_probe = self._has_probe()
        # How the log is finished says nothing of the board.
        boards = [q for q in quirks_named(manifest.quirks) if not q.early_shutdown]
        remedied = tuple(quirk.name for quirk in boards)
        self._tell(Learned(self._recording.end, remedied, has_probe))
        if not await self._check("replay", self._replay):
            return
        await self._check("checkpoint", self._checkpoint)
        try:
            timeline = await Timeline.open(self._recording, self._qemu, use_probe=has_probe)
        except RetrogradeError as error:
            self._say(_failed("start", error, 0.0))
            return
        async with timeline:
            await self._moves(timeline)
        if self._subject.operations:
            await self._check("exact", self._exact)

    async def _moves(self, timeline: Timeline) -> None:
        await self._check("start", lambda: self._steps(timeline, 0))
        middle = self._middle(timeline)
        if not await self._check("middle", lambda: self._steps(timeline, middle)):
            return
        if not timeline.can_search:
            for name in ("breakpoint", "watchpoint"):
                self._say(Check(name=name, outcome="skipped", text="this QEMU takes no probe"))
            return
        moves = await Moves.over(timeline, self._qemu, middle)
        await self._check("breakpoint", lambda: _ok(moves.break_()))
        await self._check("watchpoint", lambda: self._watch(moves))

    async def _record(self) -> Finding:
        subject = self._subject
        recording = await record(
            self._path,
            subject.arguments,
            target=subject.target,
            program=subject.program,
            timeout=subject.seconds or RECORD_SECONDS,
        )
        self._recording = recording
        manifest, console = recording.manifest, recording.console_bytes()
        if subject.done and subject.done.encode() not in console:
            raise Divergence(
                f"The guest did not come to its end within {recording.end:_} instructions.",
                detail=console[-2000:].decode(errors="replace"),
            )
        text = (
            f"{recording.end:_} instructions in {manifest.seconds:.1f} s, ended by "
            f"{manifest.ending}, {recording.log_path.stat().st_size:_} bytes of log, "
            f"{len(console):_} of console"
        )
        return "ok", text

    async def _replay(self) -> Finding:
        recording, console = self._recording, bytearray()
        began = time.monotonic()
        async with ConsolePipe(console.extend) as pipe:
            fd = pipe.write_fd
            async with await Replayer.start(recording, self._qemu, console_fd=fd) as replayer:
                reached = await replayer.run_to_end()
        recorded = recording.console_bytes()
        if reached < recording.end:
            raise Divergence(f"The replay ended at {reached:_}, before {recording.end:_}.")
        if console != recorded:
            raise Divergence(
                f"The replay printed {len(console):_} bytes, not the {len(recorded):_} recorded.",
                detail=console[-2000:].decode(errors="replace"),
            )
        return "ok", f"to {reached:_} in {time.monotonic() - began:.1f} s, console equal"

    async def _checkpoint(self) -> Finding:
        recording = self._recording
        facts = LogFacts.read(recording.log())
        known = [q for q in quirks_named(recording.manifest.quirks) if q.no_checkpoints]
        told = []
        for part in (2, 3):
            try:
                position = self._at(part)
                trial = await try_checkpoint(recording, self._qemu, facts, position)
                trial.check()
            except (Divergence, QemuError) as error:
                if known:
                    return "quirk", f"none is made ({known[0].name}). One would fail: {error.what}"
                raise
            told.append(f"at {trial.position:_}, {trial.landmarks} states equal")
        note = f"; {known[0].name} may be needless" if known else ""
        return "ok", f"{' and '.join(told)}, then to the end{note}"

    def _at(self, quarter: int) -> int:
        """Return the position after a quarter of what matters, or some."""
        subject, recording = self._subject, self._recording
        start, end = 0, recording.end
        if subject.start:
            start, end = (recording.resolve(f"console:{x}") for x in (subject.start, subject.done))
        return start + (end - start) * quarter // 4

    def _middle(self, timeline: Timeline) -> int:
        """Return a start from which a span in the middle takes an interrupt, if any does."""
        middle = self._at(2)
        later = [int(at) for at in timeline.facts.deliveries if at > middle]
        if later and later[0] < self._recording.end - SPAN:
            middle = later[0] - SPAN // 2
        return timeline.facts.clear_before(middle + 1)

    async def _steps(self, timeline: Timeline, start: int) -> Finding:
        moves = await Moves.over(timeline, self._qemu, start)
        return "ok", await moves.step()

    async def _watch(self, moves: Moves) -> Finding:
        told = await moves.watch(self._qemu)
        return ("ok", told) if told else ("skipped", "no store to RAM in the middle")

    async def _exact(self) -> Finding:
        result = await compare_randomly(
            self._recording, self._qemu, count=self._subject.operations, seed=SEED
        )
        return "ok", f"{result.operations} operations, {result.comparisons} comparisons equal"

    def _has_probe(self) -> bool:
        try:
            require_probe(self._qemu.path)
        except EnvironmentLacks:
            return False
        return True

    async def _check(self, name: str, work: Callable[[], Awaitable[Finding]]) -> bool:
        """Do one check and tell what came of it; return whether it did not fail."""
        began = time.monotonic()
        self._tell(Began(name))
        try:
            outcome, text = await work()
        except RetrogradeError as error:
            self._say(_failed(name, error, time.monotonic() - began))
            return False
        self._say(Check(name=name, outcome=outcome, text=text, seconds=time.monotonic() - began))
        return True

    def _say(self, check: Check) -> None:
        self._tell(Found(check))


async def _ok(work: Awaitable[str]) -> Finding:
    return "ok", await work


def _failed(name: str, error: RetrogradeError, seconds: float) -> Check:
    kind = "" if isinstance(error, Divergence) else f" ({type(error).__name__})"
    evidence = "" if isinstance(error, InternalError) else str(error)
    text = f"{error.what}{kind}"
    return Check(name=name, outcome="no", text=text, evidence=evidence, seconds=seconds)


async def _main(subject: Subject) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with (
        Scratch() as folder,
        contextlib.suppress(asyncio.CancelledError),
    ):
        await Trial(subject, folder, _print).run()


def _print(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(_main(msgspec.json.decode(sys.stdin.buffer.read(), type=Subject)))
