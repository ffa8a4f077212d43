"""TCP ports for a test, that no other test takes meanwhile."""

from __future__ import annotations

import os
import socket
from typing import Self

_FIRST = 49152
_LAST = 65535
_SIZE = 1024
_ADDRESS = "127.0.0.1"


class PortsExhausted(Exception):
    """No free port is left of those a test may use."""


class Ports:
    """A range of ports, held by this process while the context lasts.

    Every test process takes a range of its own, so that a port found free stays free until
    the test has started what uses it. The ranges of all processes of a machine lie between
    49152 and 65535.
    """

    PORTS_ADDR = _ADDRESS
    PORTS_RANGE_SIZE = _SIZE

    def __init__(self) -> None:
        self._lock: socket.socket | None = None
        self._given: set[int] = set()
        self.PORTS_START = _FIRST
        self.PORTS_END = _FIRST + _SIZE

    def __enter__(self) -> Self:
        """Take a range; raises PortsExhausted when all are held."""
        ranges = (_LAST + 1 - _FIRST) // _SIZE
        for offset in range(ranges):
            self.PORTS_START = _FIRST + (os.getpid() + offset) % ranges * _SIZE
            self.PORTS_END = self.PORTS_START + _SIZE
            self._lock = _hold(self.PORTS_START)
            if self._lock is not None:
                return self
        raise PortsExhausted(
            f"All {ranges} ranges of ports between {_FIRST} and {_LAST} are held by other "
            "tests. Run fewer at once."
        )

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def check_bind(self, port: int) -> bool:
        """Whether `port` is free, on all addresses: QEMU's `tcp::PORT` wants all of them."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            try:
                trial.bind(("", port))
            except OSError:
                return False
        return True

    def find_free_ports(self, count: int) -> list[int]:
        """Return `count` free ports not returned before; raises PortsExhausted."""
        found: list[int] = []
        for port in range(self.PORTS_START, self.PORTS_END):
            if len(found) == count:
                break
            if port not in self._given and self.check_bind(port):
                found.append(port)
        if len(found) < count:
            raise PortsExhausted(
                f"Only {len(found)} of {count} ports are free between {self.PORTS_START} and "
                f"{self.PORTS_END - 1}. End what uses them (ss -tlnp lists it)."
            )
        self._given.update(found)
        return found

    def find_free_port(self) -> int:
        """Return a free port not returned before; raises PortsExhausted."""
        return self.find_free_ports(1)[0]


def _hold(start: int) -> socket.socket | None:
    """Take the range that begins at `start`, unless another process has it.

    The name of an abstract socket is the lock: like the ports it belongs to the network
    namespace, and it goes away with its process.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0qemu-test-ports-{start}")
    except OSError:
        lock.close()
        return None
    return lock
