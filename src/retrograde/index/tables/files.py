"""The index's files: which names there are, how they are written, checked, listed and removed.

::

    TABLE/FIRST-LAST.CRC32.parquet   rows of positions FIRST <= position < LAST
    TABLE/FIRST-LAST.damaged         there were rows, which are lost

A file has its checksum in its name: it gets both at once, so that none is without. It is
checked when it is listed first, and takes the second name where it is damaged. One that the
disk does not read now keeps its name, for it may be read another time. What else is in the
folder, links too, came from somebody else: it is not read, and it is not removed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import re
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Final, TypeAlias

from retrograde.errors import RecordingError
from retrograde.index.tables.tables import TABLES
from retrograde.recording.folder import Folder, unreadable_is_none
from retrograde.recording.sealed import checksum_of, is_damage

META: Final = "meta.json"
META_LIMIT: Final = 1 << 20
"""Bytes of a meta.json; it has about 600."""

Interval: TypeAlias = tuple[int, int]
"""Positions (first, last): those from `first` to before `last`."""

_NAME: Final = re.compile(r"(\d+)-(\d+)\.([0-9a-f]{8})\.parquet")
_DAMAGED: Final = re.compile(r"(\d+)-(\d+)\.damaged")
# As earlier versions named them: removed with all that these made.
_UNCHECKED: Final = re.compile(r"\d+-\d+\.parquet")
# The second alternative: DuckDB's name for what it writes, left by earlier versions.
_PART: Final = re.compile(r"(tmp_)?\d+-\d+\.[\w-]+\.(\d+)\.part")
# So that names sort as numbers do: positions have at most 19 digits.
_DIGITS: Final = 19


_log = logging.getLogger(__name__)


class IndexFiles:
    """The folder of an index. Tables are named as in `TABLES`; methods raise as Folder's do."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._seen: dict[tuple[str, str, int, int], bool] = {}
        self._lost: set[tuple[str, Interval]] = set()

    def of(self, table: str) -> list[tuple[Interval, str]]:
        """Return the files of `table` that are whole, by position.

        They are paths on which there was no link. DuckDB opens them some time later. Who can
        put something else there meanwhile can write to the index, so that there is nothing
        to gain.
        """
        found: dict[Interval, str] = {}
        folder = None
        with unreadable_is_none():
            folder = self.folder.folder(_known(table))
        if folder is None:
            return []
        damaged = 0
        for match in filter(None, map(_NAME.fullmatch, sorted(folder.files()))):
            try:
                state = folder.stat(match[0])
                seen = table, match[0], state.st_ino, state.st_mtime_ns
                is_new = seen not in self._seen
                if is_new:
                    self._seen[seen] = self._is_whole(table, folder, match)
                    damaged += not self._seen[seen]
            except FileNotFoundError:
                continue  # somebody removed it
            if self._seen[seen]:
                # Of two of an interval, by writers at the same time, either will do.
                found[_interval(match)] = f"{folder}/{match[0]}"
        if damaged:
            count = damaged + len(found)
            _log.warning("%s: %d of %d files damaged, not used.", folder, damaged, count)
        return list(found.items())

    def lost(self, table: str) -> list[Interval]:
        """Return the intervals of `table` whose rows were damaged and not made again yet."""
        whole = [interval for interval, _ in self.of(table)]
        marked = {interval for name, interval in self._lost if name == table}
        with unreadable_is_none():
            names = self.folder.folder(_known(table)).files()
            marked |= {_interval(match) for match in filter(None, map(_DAMAGED.fullmatch, names))}
        return sorted(interval for interval in marked if not _is_covered(interval, whole))

    def _is_whole(self, table: str, folder: Folder, match: re.Match[str]) -> bool:
        """Whether a file is what its name says; one that is not is taken out of use.

        Raises OSError where that is not to be known.
        """
        is_read = True
        try:
            with folder.open(match[0]) as file:
                if checksum_of(file) == int(match[3], 16):
                    return True
        except OSError as error:
            if not is_damage(error):
                raise
            is_read = error.errno != errno.EIO
        self._lost.add((table, _interval(match)))
        if is_read:
            with contextlib.suppress(OSError, RecordingError):
                folder.rename(match[0], _mark(_interval(match)))
        return False

    def read(self, table: str, interval: Interval) -> bytes:
        """Return the rows of an interval, as they are on disk; KeyError when there are none."""
        folder, path = self.folder.folder(_known(table)), dict(self.of(table))[interval]
        with folder.open(Path(path).name) as file:
            return file.read()

    @contextlib.contextmanager
    def replacing(self, table: str, interval: Interval) -> Iterator[BufferedRandom]:
        """Yield a new file that takes the place of an interval's when it is whole."""
        folder, stem = self.folder.own_folder(_known(table)), _stem(interval)
        part = f"{stem}.{_host()}.{os.getpid()}.part"
        folder.unlink(part)
        try:
            with folder.create(part) as file:
                yield file
                file.flush()
                file.seek(0)
                name = f"{stem}.{checksum_of(file):08x}.parquet"
            folder.rename(part, name)
        except BaseException:
            folder.unlink(part)
            raise
        for other in folder.files():
            if other != name and other.startswith(f"{stem}.") and _NAME.fullmatch(other):
                folder.unlink(other)
        folder.unlink(_mark(interval))
        self._lost.discard((table, interval))

    def remove(self, table: str) -> None:
        """Remove the files of `table`; RecordingError where there is more than those."""
        self.folder.remove(_known(table), is_ours)
        self._lost = {one for one in self._lost if one[0] != table}

    def sweep(self) -> None:
        """Remove what processes of this machine that died left under temporary names."""
        for table in TABLES:
            with contextlib.suppress(OSError):
                folder = self.folder.folder(table)
                for part in filter(None, map(_PART.fullmatch, folder.names())):
                    if f".{_host()}." in part[0] and not Path("/proc", part[2]).exists():
                        folder.unlink(part[0])

    def state(self) -> tuple[int, ...]:
        """Return what changes whenever a file is added or removed."""
        names = {META, *TABLES}.intersection(self.folder.names())
        return tuple(self.folder.stat(name).st_mtime_ns for name in sorted(names))

    @property
    def bytes(self) -> int:
        """Bytes of all tables on disk."""
        return sum(map(self.bytes_of, TABLES))

    def bytes_of(self, table: str) -> int:
        """Bytes of a table on disk."""
        with contextlib.suppress(OSError):
            folder = self.folder.folder(_known(table))
            return sum(folder.stat(one).st_size for one in filter(_NAME.fullmatch, folder.files()))
        return 0


def is_ours(name: str) -> bool:
    """Whether a table has files of this name."""
    return any(kind.fullmatch(name) for kind in (_NAME, _DAMAGED, _UNCHECKED, _PART))


def _known(table: str) -> str:
    """Return a table's name as the code has it: no other is ever joined to a path."""
    return TABLES[table].name


def _stem(interval: Interval) -> str:
    first, last = interval
    return f"{first:0{_DIGITS}}-{last:0{_DIGITS}}"


def _mark(interval: Interval) -> str:
    return f"{_stem(interval)}.damaged"


def _interval(match: re.Match[str]) -> Interval:
    return int(match[1]), int(match[2])


def _is_covered(interval: Interval, by: Sequence[Interval]) -> bool:
    """Whether the intervals `by`, which rise, hold all positions of `interval`."""
    at = interval[0]
    for first, last in by:
        if first <= at < last:
            at = last
    return at >= interval[1]


def _host() -> str:
    """Return the name of this machine: the folder may be shared with others."""
    return re.sub(r"\W", "-", platform.node()) or "here"
