"""QMP as tests want it: one call at a time, events kept until asked for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, StateError
from qemu.qmp.protocol import Runstate

_T = TypeVar("_T")

Message = dict[str, Any]

_STAGES = 8
"""Turns of the loop that carry what came through: socket, stream, parser, listener."""


class QmpLink:
    """The monitor of one QEMU over a connected socket.

    qemu.qmp speaks the protocol, on an event loop of this object's own that runs during
    calls only. Every call raises TimeoutError after its `seconds` (None: never), QMPError
    when QEMU closed the connection.
    """

    def __init__(self, name: str, seconds: float | None) -> None:
        self._seconds = seconds
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient(name)
        self._events: list[Message] = []
        self._listener = EventListener()
        self._client.register_listener(self._listener)

    def connect(self, link: socket.socket, seconds: float) -> None:
        """Take over `link` and negotiate."""
        self._run(self._client.connect(link), seconds)

    def execute(
        self, command: str, arguments: Mapping[str, object], seconds: float | None = None
    ) -> object:
        """Run a command and return what it returns; raises ExecuteError when QEMU refuses."""
        seconds = self._seconds if seconds is None else seconds
        return self._run(self._client.execute(command, dict(arguments)), seconds)

    def execute_raw(self, command: str, arguments: Mapping[str, object]) -> Message:
        """Run a command and return QEMU's answer with its key `return` or `error`."""
        try:
            return {"return": self.execute(command, arguments)}
        except ExecuteError as error:
            return {"error": {"class": error.error_class, "desc": str(error)}}

    def pop_event(self, wait: bool | float) -> Message | None:
        """Return the oldest event; None without one, unless `wait` (True, or seconds)."""
        self._take_events()
        if self._events:
            return self._events.pop(0)
        return self._next_event(None if wait is True else float(wait)) if wait else None

    def pop_events(self, wait: bool | float) -> list[Message]:
        """Return all events so far; at least one with `wait`."""
        first = self.pop_event(wait)
        rest, self._events = self._events, []
        return [first, *rest] if first else []

    def wait_for_event(
        self,
        wanted: Sequence[tuple[str, Mapping[str, object] | None]],
        seconds: float | None,
    ) -> Message:
        """Wait for an event that fits one of `wanted`; others are kept."""
        until = None if seconds is None else time.monotonic() + seconds
        self._take_events()
        seen = 0
        while True:
            for event in self._events[seen:]:
                if any(_fits(event, name, match) for name, match in wanted):
                    self._events.remove(event)
                    return event
            seen = len(self._events)
            left = None if until is None else max(0.0, until - time.monotonic())
            self._events.append(self._next_event(left))

    def close(self) -> None:
        """Drop the connection, whatever state it is in."""
        # A QEMU that ended is no failure here, and qemu.qmp reports it as one.
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            self._run(self._client.disconnect(), self._seconds)
        self._loop.close()

    def _take_events(self) -> None:
        for _ in range(_STAGES):
            self._run(asyncio.sleep(0), None)
        self._events += [dict(event) for event in self._listener.clear()]

    def _next_event(self, seconds: float | None) -> Message:
        return dict(self._run(self._event_or_end(), seconds))

    async def _event_or_end(self) -> Mapping[str, object]:
        event = asyncio.ensure_future(self._listener.get())
        change = asyncio.ensure_future(self._client.runstate_changed())
        try:
            if self._client.runstate is Runstate.RUNNING:
                await asyncio.wait((event, change), return_when=asyncio.FIRST_COMPLETED)
            if event.done() or not self._listener.empty():
                return await event
            state = self._client.runstate
            raise StateError("QEMU closed its monitor: no event comes.", state, Runstate.RUNNING)
        finally:
            event.cancel()
            change.cancel()

    def _run(self, work: Awaitable[_T], seconds: float | None) -> _T:
        return self._loop.run_until_complete(asyncio.wait_for(work, seconds))


def arguments_of(
    args_dict: Mapping[str, object] | None, conv_keys: bool | None, keywords: Mapping[str, object]
) -> dict[str, object]:
    """Merge the two ways arguments are given to a QMP command (`QEMUMachine.qmp`)."""
    given = dict(args_dict or {})
    if conv_keys:
        given = {key.replace("_", "-"): value for key, value in given.items()}
    dashed = conv_keys is not False
    return given | {
        (key.replace("_", "-") if dashed else key): value for key, value in keywords.items()
    }


def _fits(event: Message, name: str, match: Mapping[str, object] | None) -> bool:
    return event.get("event") == name and (match is None or _contains(event, match))


def _contains(whole: object, part: object) -> bool:
    """Whether `whole` has everything `part` has, at any depth."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            key in whole and _contains(whole[key], value) for key, value in part.items()
        )
    return whole == part
