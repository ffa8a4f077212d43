"""Where the server listens: a Unix socket's path, or a host and port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from retrograde.errors import UsageError

_TCP = re.compile(r"(?:tcp:)?(\[[^\]]+\]|[^:/\[\]]*):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """`path` of a Unix socket, or `host` and `port` (0: any that is free)."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `PATH` (with a slash), `unix:PATH`, `PORT` or `HOST:PORT`.

        No host means 127.0.0.1. Raises UsageError.
        """
        if text.startswith("unix:") or "/" in text:
            path = text.removeprefix("unix:")
            if path and len(path.encode()) < 108 and "\0" not in path:
                return cls(path=path)
        elif match := _TCP.fullmatch(text if ":" in text else f":{text}"):
            host, port = match[1].strip("[]") or "127.0.0.1", int(match[2])
            if port <= 0xFFFF:
                return cls(host=host, port=port)
        raise UsageError(
            f"{text!r} is no address to listen at.",
            "Give a path such as ./gdb.sock, or HOST:PORT such as localhost:1234.",
        )

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """As lldb's `process connect` takes it."""
        return f"unix-connect://{Path(self.path).absolute()}" if self.path else f"connect://{self}"

    def __str__(self) -> str:
        """As gdb's `target remote` takes it."""
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
