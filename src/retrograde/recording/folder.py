"""Directories held by their descriptors, so that what a stranger put there leads nowhere.

A recording and its cache may come from anybody. In them files are reached one plain name at
a time from an open directory (openat): no link is followed, no name leads up or elsewhere,
and what was looked at is what is read, because the descriptor that was checked is handed
on. Only regular files are opened: a pipe would hang its reader, a device never end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from retrograde.errors import InternalError, RecordingError
from retrograde.foreign import is_limit

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NotPlain(OSError):
    """What has a file's or a directory's name is a link, no regular file, or too large."""


class Folder:
    """A directory, open until its last user is gone. Made by `at` and `folder`.

    `path` is what messages call it. Every method takes plain names and raises OSError:
    NotPlain where a link or anything but a regular file is to be read.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path

    @classmethod
    def at(cls, path: Path) -> Self:
        """Open the directory a user named; on the way to it links are the user's own."""
        return cls(os.open(path, _DIRECTORY), path)

    def __del__(self) -> None:
        os.close(self._fd)

    def __str__(self) -> str:
        return str(self.path)

    def folder(self, name: str, *, make: bool = False) -> Folder:
        """Open the directory `name`, made if it is not there and `make` is set."""
        _check_plain(name)
        try:
            found = self.stat(name)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._fd)
        else:
            if stat.S_ISLNK(found.st_mode):  # O_NOFOLLOW would only call it no directory
                raise NotPlain(errno.ELOOP, "It is a link", str(self.path / name))
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
        return Folder(fd, self.path / name)

    def own_folder(self, name: str) -> Folder:
        """Open the directory `name`, made where there is none.

        A link or a file of that name goes: we make none. What a link leads to stays.
        """
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(self.stat(name).st_mode):
                self.unlink(name)
        return self.folder(name, make=True)

    def open(self, name: str, *, follow: bool = False) -> io.BufferedReader:
        """Open the regular file `name` for reading; `follow` lets `name` itself be a link."""
        _check_plain(name)
        return _open_regular(name, self._fd, follow=follow)

    def read(self, name: str, limit: int) -> bytes:
        """Return what the file `name` holds; NotPlain when that is more than `limit` bytes."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise NotPlain(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path / name))
        return data

    def create(self, name: str) -> io.BufferedRandom:
        """Make the file `name`, for reading and writing; OSError where something has that name."""
        _check_plain(name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(name, flags, 0o644, dir_fd=self._fd), "w+b")

    def append(self, name: str) -> io.BufferedWriter:
        """Open the regular file `name` for writing at its end."""
        _check_plain(name)
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(name, flags, dir_fd=self._fd), "ab")

    def replace(self, name: str, data: bytes) -> None:
        """Make `data` the content of the file `name`: after a crash it has that or the old one."""
        new = f"{name}.{secrets.token_hex(4)}.new"
        try:
            with self.create(new) as file:
                file.write(data)
            self.rename(new, name)
        except BaseException:
            self.unlink(new)
            raise

    def rename(self, name: str, to: str) -> None:
        """Give `name` another name in this directory; a file or link of that name makes way.

        Raises RecordingError where a directory would have to.
        """
        _check_plain(name)
        _check_plain(to)
        try:
            os.rename(name, to, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except IsADirectoryError as error:
            raise RecordingError(
                f"{self.path / to} is a directory, which retrograde did not make.",
                "Look at it and remove it.",
            ) from error

    def make_temporary(self, prefix: str) -> Folder:
        """Make a directory of a new name that begins with `prefix`."""
        name = prefix + secrets.token_hex(4)
        os.mkdir(name, 0o700, dir_fd=self._fd)
        try:
            return self.folder(name)
        except BaseException:
            os.rmdir(name, dir_fd=self._fd)
            raise

    def names(self) -> list[str]:
        """Return the names of all entries."""
        with os.scandir(self._fd) as entries:
            return [one.name for one in entries]

    def files(self) -> list[str]:
        """Return the names of the regular files."""
        with os.scandir(self._fd) as entries:
            return [one.name for one in entries if one.is_file(follow_symlinks=False)]

    def stat(self, name: str) -> os.stat_result:
        """Return what is known of the entry `name`, which may be a link."""
        _check_plain(name)
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove the file or link `name`, if it is there; never what a link leads to."""
        _check_plain(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def remove(self, name: str, ours: Callable[[str], bool]) -> None:
        """Remove the entry `name`, if it is there: if a directory, with the files in it.

        Raises RecordingError, and removes nothing, where there is more than files whose
        names are `ours`.
        """
        try:
            self.unlink(name)
            return
        except IsADirectoryError:
            self.require_ours(name, ours)
            inner = self.folder(name)
        for entry in filter(ours, inner.names()):
            inner.unlink(entry)
        os.rmdir(name, dir_fd=self._fd)

    def require_ours(self, name: str, ours: Callable[[str], bool]) -> None:
        """Raise RecordingError where `remove` would."""
        try:
            inner = self.folder(name)
        except OSError:
            return  # nothing, or a link or a file: that goes without harm to anything else
        if any(not ours(one) or stat.S_ISDIR(inner.stat(one).st_mode) for one in inner.names()):
            raise RecordingError(
                f"{inner} holds what retrograde did not make.", "Look at it and remove it."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out other processes that ask for this, waiting until they are done."""
        # Opened anew, because a lock belongs to what was opened: two threads have two.
        fd = os.open(".", _DIRECTORY, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


@contextlib.contextmanager
def unreadable_is_none() -> Iterator[None]:
    """Go on where a file or directory is not there, or cannot be read.

    That a limit is reached is raised: what is there is not to be taken for lost.
    """
    try:
        yield
    except OSError as error:
        if is_limit(error):
            raise


def open_regular(path: Path, *, follow: bool = False) -> io.BufferedReader:
    """Open the regular file at `path` for reading; `follow` lets it be a link to one.

    For paths whose directory the user named. Raises OSError for anything else.
    """
    return _open_regular(path, None, follow=follow)


def _open_regular(name: str | Path, directory: int | None, *, follow: bool) -> io.BufferedReader:
    # Looked at before, because opening a device may do something; and after, for certain.
    mode = os.stat(name, dir_fd=directory, follow_symlinks=follow).st_mode
    if stat.S_ISREG(mode):
        fd = os.open(name, _READ | (0 if follow else os.O_NOFOLLOW), dir_fd=directory)
        file = os.fdopen(fd, "rb")
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return file
        file.close()
    raise NotPlain(errno.EINVAL, "Not a regular file", str(name))


def _check_plain(name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InternalError(f"{name!r} is no name of an entry in a directory.")
