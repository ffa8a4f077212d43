"""Where a user's own files go: caches, state."""

from __future__ import annotations

import os
from pathlib import Path

from retrograde.errors import EnvironmentLacks


def user_folder(variable: str, default: str) -> Path:
    """Return retrograde's folder in $`variable`, or in `default` below the home directory.

    It need not exist. Raises EnvironmentLacks where there is neither: in a container, say,
    whose user is only a number.
    """
    base = os.environ.get(variable, "")
    if base.startswith("/"):
        return Path(base) / "retrograde"
    try:
        return Path.home() / default / "retrograde"
    except RuntimeError as error:
        raise EnvironmentLacks(
            "There is no home directory: HOME is not set and this user has none.",
            f"Set HOME, or {variable}, to a folder you may write.",
        ) from error


def cannot_keep(what: str, folder: Path, error: OSError, variable: str) -> EnvironmentLacks:
    """Make the error that says `what` cannot be kept in `folder`."""
    return EnvironmentLacks(
        f"{what} cannot be kept in {folder}: {error.strerror or error}.",
        f"Set {variable} to a folder you may write.",
    )
