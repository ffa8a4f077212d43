"""Named positions, kept in the recording's cache, twice: nobody can make them again."""

from __future__ import annotations

import logging
import re

import msgspec

from retrograde.errors import EnvironmentLacks, RecordingError, UsageError
from retrograde.recording.bundle import Recording
from retrograde.recording.folder import Folder
from retrograde.recording.rrlog import MAX_POSITION
from retrograde.recording.sealed import Damaged, Kept

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_TAKEN = ("start", "end")
_MAX_BYTES = 1 << 20
_FILE = "bookmarks.json"


class Bookmarks:
    """The bookmarks of one recording, in bookmarks.json in its cache."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def all(self) -> dict[str, int]:
        """Return all positions by name; what cannot be read, or `add` refuses, counts as none."""
        try:
            found = _read(self._recording.open_cache())
        except FileNotFoundError:
            return {}
        except (OSError, RecordingError, Damaged):
            _log.warning(
                "%s cannot be read: its bookmarks are lost.", self._recording.cache / _FILE
            )
            return {}
        return {
            name: position
            for name, position in found.items()
            if _may_name(name) and 0 <= position <= MAX_POSITION
        }

    def add(self, name: str, position: int) -> None:
        """Keep a bookmark, in place of one with that name.

        Raises UsageError for a name that could be another position expression.
        """
        if not _may_name(name):
            raise UsageError(
                f"{name[:80]!r} cannot name a bookmark.",
                "Begin with a letter; letters, digits, _, . and - may follow.",
            )
        kept = self.all() | {name: position}
        try:
            _kept(self._recording.open_cache(make=True)).write(kept)
        except OSError as error:
            raise EnvironmentLacks(
                f"The bookmark cannot be kept in {self._recording.cache}: {error.strerror}.",
                "Copy the recording to a place you may write.",
            ) from error

    def resolve(self, text: str) -> int | None:
        """Return the position of a bookmark; None when there is none of that name."""
        return self.all().get(text.strip())


def _kept(cache: Folder) -> Kept[dict[str, int]]:
    return Kept(cache, _FILE, dict[str, int], _MAX_BYTES)


def _read(cache: Folder) -> dict[str, int]:
    """Return the bookmarks in a cache; raises OSError and Damaged."""
    try:
        return _kept(cache).read()
    except Damaged:
        # Earlier versions kept them without a checksum.
        try:
            return msgspec.json.decode(cache.read(_FILE, _MAX_BYTES), type=dict[str, int])
        except (msgspec.DecodeError, ValueError) as error:
            raise Damaged(_FILE) from error


def _may_name(name: str) -> bool:
    """Whether `name` is no other position expression, and safe to print."""
    return bool(_NAME.fullmatch(name)) and name not in _TAKEN
