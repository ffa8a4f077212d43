"""Signs of life: what keeps a client waiting while its answer takes long.

gdb gives up on an answer after three times `remotetimeout` (2 s unless told otherwise) and
takes it for the answer to its next question when it comes; all it shows from then on is
wrong. The protocol has no word for "wait", but two things start its wait anew:

- While a monitor command runs, output: an `O` packet, which may be empty. lldb does the same.
- At all other times any byte outside of packets: gdb looks for the next `$` or `%` and waits
  anew after each byte that is neither (remote.c, readchar in getpkt). An acknowledgement
  too many means nothing to it. lldb would take it for the answer, so it gets none.

Who has resumed the machine waits without limit and needs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from retrograde.gdbserver.requests import Refusal, move_of
from retrograde.wire.rsp import ACK, encode

SECONDS: Final = 0.5
"""Between signs. gdb counts in whole seconds: 1 is the least it can be told to wait."""

_OUTPUT_OF_NOTHING: Final = encode(b"O")


def sign_for(request: bytes, *, skips_acks: bool) -> bytes:
    """Return the bytes to send while `request` is being answered; empty when none may be.

    `skips_acks` tells that the client is known to skip an acknowledgement too many.
    """
    if request.startswith(b"qRcmd,"):
        return _OUTPUT_OF_NOTHING
    try:
        resumes = move_of(request) is not None
    except Refusal:
        return b""
    return ACK if skips_acks and not resumes else b""


class LifeSigns:
    """Calls `give` every SECONDS while one and the same request is being answered.

    One timer for all requests: a debugger sends thousands for one command, and a timer
    for each would take longer than most answers do.
    """

    def __init__(self, give: Callable[[], None]) -> None:
        self._give = give
        self._asked = self._seen = 0
        self._is_answering = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look. To be ended with `stop`."""
        self._timer = asyncio.get_running_loop().call_later(SECONDS, self._look)

    def stop(self) -> None:
        """End. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def asked(self) -> None:
        """Take note of a request."""
        self._asked += 1
        self._is_answering = True

    def answered(self) -> None:
        """Take note that it has its answer."""
        self._is_answering = False

    def _look(self) -> None:
        if self._is_answering and self._seen == self._asked:
            self._give()
        self._seen = self._asked
        self.start()
