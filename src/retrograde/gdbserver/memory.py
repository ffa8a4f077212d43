"""Memory as packets want it: what is there of a range, in digits or raw, and found."""

from __future__ import annotations

import contextlib
from typing import Final

from retrograde.errors import QemuRefused, RetrogradeError
from retrograde.gdbserver.requests import E_FAULT, E_INVALID, Refusal
from retrograde.timeline.timeline import Space, Timeline

PAGE: Final = 4096
"""What can be mapped apart is at least so large, on all targets."""

CHUNK: Final = 1 << 16
"""Bytes read at once; also the most in one answer, where each may need an escape."""

MAX_PATTERN: Final = 1 << 12


class Memory:
    """The guest's memory at the timeline's cursor."""

    def __init__(self, timeline: Timeline) -> None:
        self.space: Space = "virtual"
        self._timeline = timeline
        self._bare = False
        self._was_read = True

    async def get_ready(self) -> None:
        """Have what a client reads first at a new position at hand, before it is told of it.

        Nobody waits without limit for memory, as one does for a stop, and a machine that
        must first be taken to the position may need long for it. Once it is there, all
        memory is at hand. A client that read none at the last position (gdb, in the middle
        of a `reverse-next`) is not expected to read any now.
        """
        if not self._was_read:
            return
        self._was_read = False
        # What cannot be had now is tried again when it is asked for, and then told.
        with contextlib.suppress(RetrogradeError):
            view = self._timeline.view
            packet = await self._timeline.glimpse()
            if b"x" in packet:
                return  # one hit after the other is asked for, and what is looked at there known
            registers = view.decode(packet)
            for address in (registers[view.isa.pc], registers[view.isa.sp]):
                with contextlib.suppress(QemuRefused):
                    await self._timeline.read(address, 1, self.space)

    async def read(self, address: int, count: int) -> bytes:
        """Return `count` bytes, or fewer when the rest is not mapped. Raises Refusal."""
        self._was_read = True
        count = min(count, CHUNK, (1 << 64) - address)
        try:
            return await self._timeline.read(address, count, self.space)
        except QemuRefused:
            pass
        data = b""
        while len(data) < count:
            at = address + len(data)
            size = min(count - len(data), PAGE - at % PAGE)
            try:
                data += await self._timeline.read(at, size, self.space)
            except QemuRefused:
                break
        if not data:
            raise Refusal(E_FAULT, f"There is no memory at {address:#x}.")
        return data

    async def binary(self, address: int, count: int) -> bytes:
        """Answer `x`.

        gdb and new lldbs want a `b` before the bytes (GDB manual, "binary-upload"). Old
        lldbs want none; they ask for no bytes first, which gdb never does.
        """
        if count == 0:
            self._bare = True
            return b"OK"
        data = await self.read(address, count)
        return data if self._bare else b"b" + data

    async def region(self, address: int) -> tuple[int, int, bool]:
        """Return start and bytes of some range around `address`, and whether it is mapped.

        Neighbours may be alike: lldb goes on asking, through all that is mapped, for room
        to put what it computes into. So it is told up to CHUNK bytes at a time.
        """
        start = address - address % PAGE
        mapped = await self._is_mapped(start)
        most = min(CHUNK, (1 << 64) - start)
        if mapped and await self._is_mapped(start, most):
            return start, most, True
        size = PAGE
        while size < most and await self._is_mapped(start + size) == mapped:
            size += PAGE
        return start, size, mapped

    async def _is_mapped(self, start: int, count: int = 1) -> bool:
        self._was_read = True
        try:
            await self._timeline.read(start, count, self.space)
        except QemuRefused:
            return False
        return True

    async def find(self, address: int, count: int, pattern: bytes) -> int | None:
        """Return where `pattern` is first among `count` bytes, None when it is not there.

        Raises Refusal where memory ends before.
        """
        if not 0 < len(pattern) <= MAX_PATTERN:
            raise Refusal(E_INVALID, "The pattern is empty or too long.")
        stop = min(address + count, 1 << 64)
        held = b""
        at = address
        while at < stop:
            data = await self.read(at, min(CHUNK, stop - at))
            held = held[-(len(pattern) - 1) :] if len(pattern) > 1 else b""
            found = (held + data).find(pattern)
            if found >= 0:
                return at - len(held) + found
            held += data
            at += len(data)
        return None
