"""Named positions, kept in the recording's cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from retrograde.errors import EnvironmentLacks, UsageError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_TAKEN = ("start", "end")
_MAX_BYTES = 1 << 20


class Bookmarks:
    """The bookmarks of one recording, in `cache`/bookmarks.json."""

    def __init__(self, cache: Path) -> None:
        self._path = cache / "bookmarks.json"

    def all(self) -> dict[str, int]:
        """Return all positions by name; what cannot be read counts as none."""
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(_MAX_BYTES), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def add(self, name: str, position: int) -> None:
        """Keep a bookmark, in place of one with that name.

        Raises UsageError for a name that could be another position expression.
        """
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise UsageError(
                f"{name[:80]!r} cannot name a bookmark.",
                "Begin with a letter; letters, digits, _, . and - may follow.",
            )
        kept = self.all() | {name: position}
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(exist_ok=True)
            new.write_bytes(msgspec.json.encode(kept))
            new.replace(self._path)
        except OSError as error:
            raise EnvironmentLacks(
                f"The bookmark cannot be kept in {self._path}: {error.strerror}.",
                "Copy the recording to a place you may write.",
            ) from error

    def resolve(self, text: str) -> int | None:
        """Return the position of a bookmark; None when there is none of that name."""
        return self.all().get(text.strip())
