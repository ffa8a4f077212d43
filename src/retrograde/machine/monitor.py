"""QMP with deadlines: the monitor of one QEMU, over an inherited socket.

qemu.qmp does the protocol; this adds a deadline and a named error to every wait, and
keeps the events that tell whether the machine runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, cast

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from retrograde.errors import InternalError, QemuRefused, QemuTimeout
from retrograde.machine.process import QemuProcess
from retrograde.recording.machinespec import Shift

Result = TypeVar("Result")

ANSWER_SECONDS = 30.0
"""How long QEMU may take to answer a command. savevm of 1 GB takes about 2 s."""

DEAF_INSTRUCTIONS = 2**31
"""How many, at one nanosecond each, a guest may run through in which nothing is due.

QEMU runs them in one go with the lock that its main loop needs (INT32_MAX in
icount_get_limit, accel/tcg/tcg-accel-ops-icount.c; replay_mutex_lock)."""

SLOWEST = 4e6
"""Instructions a second of processor time: less than with all of a probe's callbacks."""

LOOK_SECONDS = 1.0
"""How often a QEMU that does not answer is looked at."""

DYING_SECONDS = 2.0
"""How long after losing the connection we wait to learn the exit status."""


class Monitor:
    """The QMP connection of one QEMU process."""

    def __init__(
        self,
        process: QemuProcess,
        answer_seconds: float = ANSWER_SECONDS,
        *,
        shift: Shift = "auto",
    ) -> None:
        """`shift` is that of the guest's clock: an instruction takes 2**shift ns."""
        self._process = process
        self._answer_seconds = answer_seconds
        self.deaf_seconds = (DEAF_INSTRUCTIONS >> (0 if shift == "auto" else shift)) / SLOWEST
        """How long a QEMU that is well may not listen, for a guest to which nothing happens."""
        self._client = QMPClient(process.name)
        self._stops = EventListener(("STOP", "SHUTDOWN"))
        self._client.register_listener(self._stops)

    async def connect(self, link: socket.socket) -> None:
        """Take over `link`, the other end of QEMU's monitor, and negotiate."""
        try:
            await self._patiently(self._client.connect(link), "starting", self._answer_seconds)
        except (QMPError, AssertionError) as error:
            # qemu.qmp asserts that it still runs when a QEMU that had nothing to do ends
            # in the middle of the handshake (protocol.py, _new_session).
            await self._settle()
            raise self._process.died("starting") from error

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        seconds: float | None = None,
    ) -> Any:
        """Run one QMP command and return what it returns.

        Raises QemuRefused when QEMU answers with an error, QemuDied when it ends
        before the answer, QemuTimeout after `seconds` (default: this monitor's) in which it
        did nothing, or when it was busy for longer than a guest may keep it from listening.
        """
        asked = self._client.execute(command, cast("dict[str, object]", arguments))
        seconds = self._answer_seconds if seconds is None else seconds
        try:
            return await self._patiently(asked, f"the QMP command {command}", seconds)
        except ExecuteError as error:
            what = f"QEMU refused {command}: {str(error).rstrip('.')}."
            raise QemuRefused(what, detail=self._process.stderr()) from error
        except QMPError as error:
            await self._settle()
            raise self._process.died(f"answering {command}") from error

    async def _patiently(self, answer: Awaitable[Result], doing: str, seconds: float) -> Result:
        """Wait for an answer as long as the guest may keep QEMU busy, and `seconds`."""
        answer = asyncio.ensure_future(answer)
        clock, process = asyncio.get_running_loop().time, self._process
        patient_since, busy = clock(), process.cpu_seconds()
        deaf_until = busy + self.deaf_seconds
        try:
            while not (await asyncio.wait((answer,), timeout=min(seconds, LOOK_SECONDS)))[0]:
                if busy < (now_busy := process.cpu_seconds()) < deaf_until:
                    patient_since, busy = clock(), now_busy
                elif clock() - patient_since > seconds:
                    raise process.timed_out(doing, seconds)
            return answer.result()
        finally:
            answer.cancel()

    async def human(self, line: str, seconds: float | None = None) -> str:
        """Run one human monitor command and return its text, which may be an error."""
        answer = await self.execute("human-monitor-command", {"command-line": line}, seconds)
        if not isinstance(answer, str):
            raise InternalError(f"QMP answered {line!r} with {type(answer).__name__}, not text.")
        return answer.replace("\r\n", "\n").strip()

    async def obey(self, line: str, seconds: float | None = None) -> None:
        """Run a human monitor command that is silent when it works; else QemuRefused."""
        if answer := await self.human(line, seconds):
            raise QemuRefused(f"QEMU refused `{line}`: {answer.rstrip('.')}.")

    def forget_stops(self) -> None:
        """Drop stop events that came so far, before an action that will cause one."""
        self._stops.clear()

    async def stop_event(self) -> str:
        """Wait for the machine to stop: 'STOP', or 'SHUTDOWN' at the end of the log.

        Has no deadline of its own: the caller watches progress. Raises QemuDied when
        QEMU ends instead.
        """
        stop = asyncio.ensure_future(self._stops.get())
        gone = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((stop, gone), return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                return str(stop.result()["event"])
            raise self._process.died("running the machine")
        finally:
            stop.cancel()
            gone.cancel()

    async def close(self) -> None:
        """Drop the connection; never raises because QEMU already did."""
        with contextlib.suppress(QMPError, EOFError, OSError, TimeoutError):
            async with asyncio.timeout(self._answer_seconds):
                await self._client.disconnect()

    async def _settle(self) -> None:
        """Give a dying QEMU the moment it needs, so that its exit status is known."""
        with contextlib.suppress(QemuTimeout):
            await self._process.wait(DYING_SECONDS)
