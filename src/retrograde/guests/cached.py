"""Guests that are made once and kept: each a folder in the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.errors import EnvironmentLacks
from retrograde.held import Scratch
from retrograde.machine.userfolder import user_folder

Make = Callable[[Path, Path], None]
"""Fills the first folder; the second is room to work in."""


def cached(name: str, make: Make, megabytes: int = 100) -> Path:
    """Return the folder `name` of guests' files, which `make` fills on first use.

    It appears complete or not at all, also with several of us at it. Raises EnvironmentLacks
    where it cannot be stored; it takes up to `megabytes`.
    """
    folder = user_folder("XDG_CACHE_HOME", ".cache") / "guests" / name
    try:
        if not folder.is_dir():
            _build(folder, make)
    except OSError as error:
        raise EnvironmentLacks(
            f"The guest {name} cannot be stored in {folder.parent}: {error}",
            f"Set XDG_CACHE_HOME to a directory with {megabytes} MB of free space",
        ) from error
    return folder


def _build(folder: Path, make: Make) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Scratch.swept(folder.parent) as work:
        result = work / "result"
        result.mkdir()
        make(result, work)
        try:
            result.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
