"""The listening server: clients one after another, all on the same timeline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.gdbserver.address import Address
from retrograde.gdbserver.connection import Connection
from retrograde.gdbserver.face import Mode
from retrograde.gdbserver.mode import ModeChoice
from retrograde.timeline.timeline import Timeline

Report = Callable[[str], None]

REFUSED_AT_ONCE: Final = 8
"""Clients that are being told why; further ones are cut off, or they would use up descriptors."""

_TAKEN: Final = (
    "Another debugger is attached to this recording, and one is served at a time. "
    "Let it `disconnect`, or serve the recording a second time."
)


class GdbServer:
    """Serves `timeline` to debuggers. Made by `start`; always ended by `close`.

    The cursor stays where a client left it. One client at a time: another that connects
    meanwhile is told so and sent away, unless the one before is leaving or gives way to it.
    """

    def __init__(
        self,
        timeline: Timeline,
        address: Address,
        report: Report,
        patience: float | None,
        mode: ModeChoice,
    ) -> None:
        self._timeline = timeline
        self.address = address
        """Where it listens, with the port that was found."""
        self._report = report
        self._patience = patience
        self._mode = mode
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._last: tuple[Connection, asyncio.Task[None]] | None = None
        self._has_told = False
        self._refused = 0

    @classmethod
    async def start(
        cls,
        timeline: Timeline,
        address: Address,
        report: Report = lambda _text: None,
        *,
        patience: float | None = None,
        mode: Mode | None = None,
    ) -> Self:
        """Listen at `address`; `report` is told of clients that are sent away.

        A client that has asked nothing for `patience` seconds gives way to another that
        comes; None lets it stay. A PC is shown as in `mode` until a client chooses. A Unix
        socket is for its owner only. Raises UsageError when the address is taken,
        EnvironmentLacks when it cannot be had.
        """
        server = cls(timeline, address, report, patience, ModeChoice(mode))
        try:
            await server._open()
        except OSError as error:
            raise EnvironmentLacks(
                f"{address} cannot be listened at: {error.strerror or error}.",
                "Choose another address with --gdb.",
            ) from error
        return server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Send the client away and listen no more. Safe to repeat."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self.address.path:
            Path(self.address.path).unlink(missing_ok=True)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _open(self) -> None:
        loop, path = asyncio.get_running_loop(), self.address.path
        if not path:
            self._server = await loop.create_server(
                self._connection, self.address.host, self.address.port
            )
            port = self._server.sockets[0].getsockname()[1]
            self.address = Address(host=self.address.host, port=port)
            return
        _make_room(Path(path))
        listening = socket.socket(socket.AF_UNIX)
        try:
            mask = os.umask(0o177)
            try:
                listening.bind(path)
            finally:
                os.umask(mask)
            self._server = await loop.create_unix_server(self._connection, sock=listening)
        except BaseException:
            listening.close()
            raise

    def _connection(self) -> Connection:
        return Connection(self._timeline, self._accept, self._mode)

    def _accept(self, connection: Connection) -> None:
        before = None
        if self._last is not None:
            last, before = self._last
            if not before.done() and not last.is_leaving and not self._takes_place_of(last):
                self._refuse(connection)
                return
        self._has_told = False
        task = asyncio.create_task(_serve(connection, before))
        self._last = connection, task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    def _takes_place_of(self, last: Connection) -> bool:
        """Send an idle client away for another; returns whether it was idle."""
        if not last.gives_way(self._patience):
            return False
        self._report("a client that was idle was sent away: another one came")
        last.abort()
        return True

    def _refuse(self, connection: Connection) -> None:
        if not self._has_told:  # once for each that is served: anybody can come again and again
            self._has_told = True
            self._report("a second client was sent away: one is served at a time")
        if self._refused == REFUSED_AT_ONCE:
            connection.abort()
            return
        self._refused += 1
        connection.refuse(_TAKEN, self._forget_refused)

    def _forget_refused(self) -> None:
        self._refused -= 1


async def _serve(connection: Connection, before: asyncio.Task[None] | None) -> None:
    try:
        if before is not None:
            await asyncio.wait((before,))
        await connection.run()
    finally:
        connection.abort()


def _make_room(path: Path) -> None:
    """Remove a socket whose server is gone. Raises UsageError for anything else there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect(str(path))
            mode = 0
        if mode:
            path.unlink()
            return
    raise UsageError(f"{path} is already there.", "Choose another path or remove it first.")
