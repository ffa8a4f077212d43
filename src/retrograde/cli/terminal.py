"""The guest's console on our standard input and output, as with QEMU's `-serial stdio`.

QEMU gets one end of a socket pair; two threads carry bytes between the other end and
the terminal, so that a reader who pauses pauses the guest and nothing else. We set the
terminal and put it back, however QEMU ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from retrograde.cli.typist import Script
from retrograde.machine.userconsole import StdioConsole

ESCAPE = 0x01
"""Ctrl-A. What follows it is for us (QEMU's manual, "Keys in the character backend
multiplexer"): x ends the machine, another Ctrl-A is typed at the guest."""

_CHUNK = 1 << 16

TYPING_SECONDS = 0.001
"""The pause after each byte typed at the guest, 9600 baud.

Bytes being recorded pass the serial port's flow control: they wait in the queue of
asynchronous events, where the port does not see them, and those beyond its 16-byte
FIFO are lost (QEMU 10.0.2: of 43 bytes sent at once to a port without FIFO one comes
through). A guest with a timer takes from that queue many times a millisecond.
"""


class ConsoleOutput:
    """The console's output goes to each of the descriptors `outs` while the context lasts.

    `theirs` is the end for QEMU. What `script` answers to the output is typed.
    """

    def __init__(self, outs: Sequence[int], script: Script | None = None) -> None:
        self._outs = outs
        self._script = script or Script(())
        self._ours, self.theirs = socket.socketpair()
        self._shower = threading.Thread(target=self._show)

    def __enter__(self) -> Self:
        self._shower.start()
        return self

    def __exit__(self, *unused: object) -> None:
        # With QEMU gone and this closed, what is left to show ends with an end-of-file.
        self.theirs.close()
        self._shower.join()
        self._ours.close()

    def _show(self) -> None:
        while data := self._receive():
            with contextlib.suppress(OSError):  # QEMU ended
                type_at(self._ours, self._script.answer(data))
            for out in self._outs:
                # When nobody reads any more the guest must not notice.
                with contextlib.suppress(OSError):
                    _write(out, data)

    def _receive(self) -> bytes:
        try:
            return self._ours.recv(_CHUNK)
        except ConnectionError:  # QEMU was killed with our input unread
            return b""


def type_at(guest: socket.socket, keys: bytes) -> None:
    """Type `keys`, as fast as a guest can take them; OSError when it is gone."""
    for byte in keys:
        guest.sendall(bytes([byte]))
        time.sleep(TYPING_SECONDS)


def _write(out: int, data: bytes) -> None:
    while data:
        data = data[os.write(out, data) :]


class Terminal(ConsoleOutput):
    """The console is on standard input and output while the context lasts.

    Its output goes to `copies` too. `leave` is called, in another thread, when the user
    asks to end the machine by Ctrl-A x.
    """

    def __init__(
        self,
        asked: StdioConsole,
        leave: Callable[[], object],
        copies: Sequence[int] = (),
        script: Script | None = None,
    ) -> None:
        super().__init__((sys.stdout.fileno(), *copies), script)
        self._asked = asked
        self._leave = leave
        self._wake, self._waker = os.pipe()
        self._typist = threading.Thread(target=self._type)
        self._settings: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        self._set_terminal()
        self._typist.start()
        return super().__enter__()

    def __exit__(self, *unused: object) -> None:
        os.close(self._waker)
        self._typist.join()
        os.close(self._wake)
        super().__exit__()
        if self._settings is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._settings)

    def _type(self) -> None:
        """Carry standard input to the guest, until it ends or `__exit__` wakes us."""
        if sys.stdin is None:  # closed by our caller (`<&-`): its number may be anything's now
            return
        source = sys.stdin.fileno()
        escapes = EscapeFilter(self._leave) if self._asked.escapes else None
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self._wake, select.POLLHUP)
        with contextlib.suppress(OSError):  # QEMU ended
            while self._wake not in {fd for fd, _ in poll.poll()}:
                data = os.read(source, _CHUNK)
                if not data:
                    return
                type_at(self._ours, escapes.pass_on(data) if escapes else data)

    def _set_terminal(self) -> None:
        """Set the terminal as QEMU does (chardev/char-stdio.c): bytes as they are typed."""
        if sys.stdin is None or not sys.stdin.isatty():
            return
        self._settings = termios.tcgetattr(sys.stdin)
        iflag, oflag, cflag, lflag, *rest = termios.tcgetattr(sys.stdin)
        iflag &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
            | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        if not self._asked.signals:
            lflag &= ~termios.ISIG
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        settings = [iflag, oflag | termios.OPOST, cflag, lflag, *rest]
        termios.tcsetattr(sys.stdin, termios.TCSANOW, settings)


class EscapeFilter:
    """Takes Ctrl-A and what follows it out of what is typed."""

    def __init__(self, leave: Callable[[], object]) -> None:
        self._leave = leave
        self._escaped = False

    def pass_on(self, data: bytes) -> bytes:
        """Return what of `data` is for the guest; calls `leave` for Ctrl-A x."""
        kept = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte in (ESCAPE, ord("a")):
                    kept.append(ESCAPE)
                elif byte == ord("x"):
                    self._leave()
            elif byte == ESCAPE:
                self._escaped = True
            else:
                kept.append(byte)
        return bytes(kept)
