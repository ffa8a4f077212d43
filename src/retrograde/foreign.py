"""The one place where errors of Python, the system and libraries become sentences of ours.

What is known where it happens, and what to do about it, is said there: this is the last
resort. It tells whose fault an error is, because the exit code depends on it: the machine
lacks something (3), a recording's derived data is damaged (2), or we are wrong (70).
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path

from retrograde.errors import EnvironmentLacks, InternalError, RecordingError, RetrogradeError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)

_UNWRITABLE = re.compile("ould not write|No space left")  # DuckDB's words

_UNLOADABLE = re.compile("failed to map segment|annot allocate memory")  # the loader's

_FREE_SPACE = "Free some space there."
_MORE_MEMORY = "Free some, or raise the limit (ulimit -v, or that of the container)."
_REPORT = "Please report it, with what `retrograde --debug` prints before the same command's name."


def in_our_words(error: Exception) -> RetrogradeError:
    """Return the error of ours that says what `error` means for the user."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    match error:
        case RetrogradeError():
            return _limit_behind(error) or error
        case OSError():
            return _of_the_system(error)
        case MemoryError():
            return EnvironmentLacks("Memory ran out.", _MORE_MEMORY)
        case ImportError() if _UNLOADABLE.search(str(error)):
            return EnvironmentLacks("Memory ran out.", _MORE_MEMORY, _text(error))
        case ImportError():
            return EnvironmentLacks(
                f"A Python package cannot be loaded: {_text(error)}.",
                "Install retrograde again, with all it needs: pip install --force-reinstall.",
            )
        case RuntimeError() if "start new thread" in str(error):
            return _no_process("thread")
    return _of_duckdb(error) or _ours(error)


def is_limit(error: OSError) -> bool:
    """Whether a limit of ours is reached, so that nothing is known of what was to be opened."""
    return error.errno in _LIMITS


def _of_the_system(error: OSError) -> RetrogradeError:
    """Say what the system refused; which is its right, unless we asked for nonsense."""
    why = error.strerror or _text(error)
    named = f"{error.filename!s}" if error.filename else ""
    if limit := _limit(error):
        return limit
    if error.errno in _FULL:
        return EnvironmentLacks(f"{named or 'The output'} cannot be written: {why}.", _FREE_SPACE)
    if error.errno == errno.EIO:
        return EnvironmentLacks(
            f"{named or 'A file'} cannot be read or written: {why}.", "Check the disk it is on."
        )
    if error.errno in _PERMISSION and named:
        return EnvironmentLacks(
            f"{named} cannot be used: {why}.", "Change its permissions or choose another place."
        )
    if named:
        return EnvironmentLacks(f"{named} cannot be used: {why}.", "Check that path.")
    return _ours(error)


def _limit(error: OSError) -> EnvironmentLacks | None:
    """Say which of our limits is reached; None when it is none."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return EnvironmentLacks(
            "No further file can be opened: the limit is reached.", "Raise it: ulimit -n 1024."
        )
    if error.errno == errno.ENOMEM:
        return EnvironmentLacks("Memory ran out.", _MORE_MEMORY)
    if error.errno == errno.EAGAIN:
        return _no_process("process")
    return None


def _limit_behind(error: RetrogradeError) -> EnvironmentLacks | None:
    """Say which limit is why something was taken for unreadable, or for a program that fails.

    Whoever opens a file names the file. That a limit is reached is no fault of any.
    """
    cause = error.__cause__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    limit = _limit(cause) if cause else None
    if limit:
        limit.detail = error.what
    return limit


def _of_duckdb(error: Exception) -> RetrogradeError | None:
    """Say what went wrong in the database; None when it was not there."""
    duckdb = sys.modules.get("duckdb")
    if duckdb is None or not isinstance(error, duckdb.Error):
        return None
    if isinstance(error, duckdb.OutOfMemoryException):
        return EnvironmentLacks(
            "The database ran out of memory, or of space in TMPDIR.", _MORE_MEMORY, str(error)
        )
    for number in _LIMITS:
        if os.strerror(number) in str(error) and (limit := _limit(OSError(number, ""))):
            limit.detail = str(error)
            return limit
    if isinstance(error, duckdb.IOException) and _UNWRITABLE.search(str(error)):
        return EnvironmentLacks("The database cannot write its file.", _FREE_SPACE, str(error))
    return RecordingError(
        "The recording's index cannot be read.",
        "Remove the folder cache/index in the recording and make it again: retrograde index.",
        str(error),
    )


def _no_process(kind: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"No further {kind} can be started: the limit is reached.",
        "Raise it (ulimit -u or -v, or that of the container), or use fewer --jobs.",
    )


def _ours(error: Exception) -> InternalError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return InternalError(
        f"This is a defect of retrograde: {type(error).__name__}{where}.", _REPORT, _text(error)
    )


def _text(error: Exception) -> str:
    """Return an error's words in one short line."""
    return " ".join(str(error).split()).rstrip(".")[:500]
