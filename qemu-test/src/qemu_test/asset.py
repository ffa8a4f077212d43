"""Files a test needs from the network, kept in a cache by their digest.

A cached asset needs no network. One that cannot be reached skips the test that wants it;
one that has arrived with another digest than the test says is an error, because then the
test does not test what its author meant.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import time
import unittest
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self, cast

LOG = logging.getLogger("qemu-test")

TRIES = 3
CONNECT_SECONDS = 60.0
_CHUNK = 1 << 20
_ALGORITHMS = {64: "sha256", 128: "sha512"}
_GONE = (404, 410)


class AssetError(Exception):
    """An asset cannot be had. `transient` says that it may be had at another time."""

    def __new__(cls, asset: Asset, msg: str, transient: bool = False) -> Self:  # noqa: ARG004, D102
        # So that a test that does not catch it is skipped, by any test runner.
        return cast(Self, super().__new__(_Unreachable if transient else cls))

    def __init__(self, asset: Asset, msg: str, transient: bool = False) -> None:
        super().__init__(f"{msg}: {asset.url}")
        self.asset = asset
        self.msg = msg
        self.transient = transient


class _Unreachable(AssetError, unittest.SkipTest):
    """An AssetError that is `transient`."""


class Asset:
    """A file at `url` whose digest is `hashsum`, SHA-256 or SHA-512 in hex."""

    def __init__(self, url: str, hashsum: str) -> None:
        self.url = url
        self.hash = hashsum

    def __repr__(self) -> str:
        return f"Asset({self.url!r}, {self.hash!r})"

    def __str__(self) -> str:
        return str(self.cache_file)

    @property
    def cache_dir(self) -> Path:
        """Where assets are kept."""
        return _cache_folder() / "download"

    @property
    def cache_file(self) -> Path:
        """Where this one is kept."""
        return self.cache_dir / self.hash

    def valid(self) -> bool:
        """Whether it is in the cache, and what it should be."""
        return not self._to_refresh() and self._has_digest(self.cache_file)

    def fetchable(self) -> bool:
        """Whether it may be fetched from the network (QEMU_TEST_NO_DOWNLOAD is not set)."""
        return not os.environ.get("QEMU_TEST_NO_DOWNLOAD")

    def available(self) -> bool:
        """Whether `fetch` may succeed."""
        return self.valid() or self.fetchable()

    def fetch(self) -> str:
        """Return the path of the cached file, after fetching it if need be.

        Raises AssetError; one that is transient skips the test unless it is caught.
        """
        if self.valid():
            LOG.debug("cached: %s", self)
            return str(self)
        if not self.fetchable():
            raise AssetError(self, "Not cached, and QEMU_TEST_NO_DOWNLOAD is set", transient=True)
        self._algorithm()
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with self._draft() as draft:
            if not self.valid():  # another process may have fetched it while we waited
                self._download(draft)
        return str(self)

    @staticmethod
    def precache_test(test: unittest.TestCase) -> None:
        """Fetch all assets of a test's class; those that cannot be reached are passed over."""
        for name, asset in vars(type(test)).items():
            if name.startswith("ASSET_") and isinstance(asset, Asset):
                try:
                    asset.fetch()
                except AssetError as error:
                    if not error.transient:
                        raise
                    LOG.error("%s", error)

    @staticmethod
    def precache_suite(suite: unittest.TestSuite) -> None:
        """Fetch all assets of the tests in a suite."""
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                Asset.precache_suite(test)
            else:
                Asset.precache_test(test)

    @staticmethod
    def precache_suites(path: str, cacheTstamp: str) -> None:
        """Fetch all assets of the test module `path` and write the time to a file."""
        Asset.precache_suite(unittest.defaultTestLoader.loadTestsFromName(path))
        Path(cacheTstamp).write_text(f"{time.time()}\n")

    def _to_refresh(self) -> bool:
        wanted = os.environ.get("QEMU_TEST_REFRESH_CACHE")
        return bool(wanted) and self.hash not in _refreshed

    def _algorithm(self) -> str:
        try:
            return _ALGORITHMS[len(self.hash)]
        except KeyError:
            raise AssetError(self, f"{self.hash!r} is no SHA-256 and no SHA-512") from None

    def _has_digest(self, file: Path) -> bool:
        try:
            with file.open("rb") as data:
                return hashlib.file_digest(data, self._algorithm()).hexdigest() == self.hash
        except FileNotFoundError:
            return False

    @contextmanager
    def _draft(self) -> Iterator[BinaryIO]:
        """Hold the file to download into, alone: who comes second waits for the first.

        The lock goes away with its process, so nobody ever waits for a dead one.
        """
        path = self.cache_file.with_suffix(".part")
        while True:
            with path.open("ab") as draft:
                fcntl.flock(draft, fcntl.LOCK_EX)
                if not _is(draft, path):
                    continue  # the one before us renamed or removed what we opened
                try:
                    yield cast(BinaryIO, draft)
                finally:
                    if _is(draft, path):
                        path.unlink()
                return

    def _download(self, draft: BinaryIO) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                self._receive(draft)
                break
            except urllib.error.HTTPError as error:
                error.close()
                what = f"The server answers {error.code} {error.reason}"
                raise AssetError(self, what, transient=error.code not in _GONE) from error
            except (OSError, http.client.HTTPException) as error:
                LOG.info("attempt %d to fetch %s: %s", attempt, self.url, error)
                if attempt == TRIES:
                    raise AssetError(self, f"Unreachable ({error})", transient=True) from error
        path = Path(draft.name)
        if not self._has_digest(path):
            raise AssetError(self, f"What arrived does not have the digest {self.hash}")
        self._tell_origin(path)
        path.chmod(0o440)
        path.rename(self.cache_file)
        _refreshed.add(self.hash)

    def _receive(self, draft: BinaryIO) -> None:
        draft.truncate(0)
        LOG.info("fetching %s", self.url)
        with urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS) as answer:  # noqa: S310
            expected = answer.headers.get("Content-Length")
            received = 0
            while chunk := answer.read(_CHUNK):
                received += draft.write(chunk)
        draft.flush()
        if expected is not None and received != int(expected):
            raise http.client.HTTPException(f"{received} bytes of {expected} arrived")

    def _tell_origin(self, path: Path) -> None:
        with suppress(OSError):  # not every file system keeps attributes
            os.setxattr(path, "user.qemu-asset-url", self.url.encode())
            os.setxattr(path, "user.qemu-asset-hash", self.hash.encode())


_refreshed: set[str] = set()
"""Digests this process fetched anew because QEMU_TEST_REFRESH_CACHE is set."""


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether `path` is still the file that was opened as `file`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _cache_folder() -> Path:
    if named := os.environ.get("QEMU_TEST_CACHE_DIR"):
        return Path(named)
    return Path("~/.cache/qemu").expanduser()
