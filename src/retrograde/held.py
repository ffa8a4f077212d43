"""What somebody alive holds, and what the dead left.

Whoever makes something under a name locks it until it is whole. The kernel gives the lock
back when its owner dies, by whatever signal. So what is there and not locked has no owner,
and nothing needs to be guessed from process ids or from times. Where a file system has no
locks, nothing is ever taken to be left.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Self

PREFIX = "retrograde-"
SUFFIX = ".scratch"


class Held:
    """A lock on one file or folder, until `close`, or until nobody refers to this any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """The file or folder that is locked, opened."""
        self._closing = weakref.finalize(self, os.close, fd)

    def close(self) -> None:
        """Give it back. Safe to repeat."""
        self._closing()


def hold(path: Path, flags: int = os.O_RDONLY, *, wait: bool = False) -> Held | None:
    """Lock what is at `path`, opened with `flags`; never through a link.

    None where another holds it, where it went away meanwhile, or where there are no locks.
    `wait` waits for the other, who is about to remove it. Raises OSError when it cannot be
    opened.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    held = Held(os.open(path, flags, 0o666))
    with contextlib.suppress(OSError):
        fcntl.flock(held.fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(held.fd), path.lstat()):
            return held
    held.close()
    return None


class Scratch:
    """A folder for the time being, of ours alone. A context manager; leaving it removes it.

    It goes at the latest when we end, and where we are killed with the next `sweep`.
    """

    def __init__(self, place: Path | None = None) -> None:
        """Make one in `place`, which is TMPDIR if not said otherwise. Raises OSError."""
        self.path, held = _made(place)
        self._removing = weakref.finalize(self, _remove, self.path, held)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it. Safe to repeat."""
        self._removing()

    @classmethod
    def swept(cls, place: Path) -> Self:
        """Make one in `place`, once the dead's are gone."""
        sweep(place)
        return cls(place)


def sweep(place: Path | None = None) -> None:
    """Remove the scratch folders in `place` (TMPDIR) whose makers are dead. Never raises."""
    with contextlib.suppress(OSError):
        for path in (place or Path(tempfile.gettempdir())).glob(f"{PREFIX}*{SUFFIX}"):
            with contextlib.suppress(OSError):
                _sweep_one(path)


def _sweep_one(path: Path) -> None:
    held = hold(path, os.O_DIRECTORY)
    if held and os.fstat(held.fd).st_uid == os.geteuid():
        _remove(path, held)


def _made(place: Path | None) -> tuple[Path, Held | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=place))
        try:
            held = hold(path, os.O_DIRECTORY, wait=True)
            if held or path.is_dir():
                return path, held
        except FileNotFoundError:
            pass  # swept in the moment before it was held: again
        except BaseException:
            _remove(path, None)
            raise


def _remove(path: Path, held: Held | None) -> None:
    try:
        path.rmdir()  # takes no descriptor, of which there may be none left
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            # At our end there are descriptors again; else the next sweep finds it.
            atexit.register(shutil.rmtree, path, ignore_errors=True)
    if held:
        held.close()
