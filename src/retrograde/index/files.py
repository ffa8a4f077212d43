"""The index's files: which names there are, how they are written, listed and removed.

What else is in the folder, links too, came from somebody else: it is not read, and it is not
removed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Final, TypeAlias

from retrograde.index.tables import TABLES
from retrograde.recording.folder import Folder

META: Final = "meta.json"
META_LIMIT: Final = 1 << 20
"""Bytes of a meta.json; it has about 600."""

Interval: TypeAlias = tuple[int, int]
"""Positions (first, last): those from `first` to before `last`."""

_NAME: Final = re.compile(r"(\d+)-(\d+)\.parquet")
# The second alternative: DuckDB's name for what it writes, left by earlier versions.
_PART: Final = re.compile(r"(tmp_)?\d+-\d+\.[\w-]+\.(\d+)\.part")
# So that names sort as numbers do: positions have at most 19 digits.
_DIGITS: Final = 19


class IndexFiles:
    """The folder of an index. Tables are named as in `TABLES`; methods raise as Folder's do."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def of(self, table: str) -> list[tuple[Interval, str]]:
        """Return the files of `table`, by position, at paths on which there was no link.

        DuckDB opens them by their paths, some time later. Who can put something else there
        meanwhile can write to the index, so that there is nothing to gain.
        """
        try:
            folder = self.folder.folder(_known(table))
        except OSError:
            return []
        matches, place = map(_NAME.fullmatch, sorted(folder.files())), str(folder)
        return [((int(m[1]), int(m[2])), f"{place}/{m[0]}") for m in matches if m]

    def read(self, table: str, interval: Interval) -> bytes:
        """Return the rows of an interval, as they are on disk."""
        with self.folder.folder(_known(table)).open(_name(interval)) as file:
            return file.read()

    @contextlib.contextmanager
    def replacing(self, table: str, interval: Interval) -> Iterator[BufferedRandom]:
        """Yield a new file that takes the place of an interval's when it is whole."""
        folder, name = self.folder.own_folder(_known(table)), _name(interval)
        part = f"{name.removesuffix('.parquet')}.{_host()}.{os.getpid()}.part"
        folder.unlink(part)
        try:
            with folder.create(part) as file:
                yield file
            folder.rename(part, name)
        except BaseException:
            folder.unlink(part)
            raise

    def remove(self, table: str) -> None:
        """Remove the files of `table`; RecordingError where there is more than those."""
        self.folder.remove(_known(table), is_ours)

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
        return sum(Path(path).lstat().st_size for table in TABLES for _, path in self.of(table))


def is_ours(name: str) -> bool:
    """Whether a table has files of this name."""
    return bool(_NAME.fullmatch(name) or _PART.fullmatch(name))


def _known(table: str) -> str:
    """Return a table's name as the code has it: no other is ever joined to a path."""
    return TABLES[table].name


def _name(interval: Interval) -> str:
    first, last = interval
    return f"{first:0{_DIGITS}}-{last:0{_DIGITS}}.parquet"


def _host() -> str:
    """Return the name of this machine: the folder may be shared with others."""
    return re.sub(r"\W", "-", platform.node()) or "here"
