"""Derived data that tells when it is damaged: checksums, and documents that have one.

::

    {"crc32": "0badcafe", "content": …}

CRC-32 finds what disks, memory and writers that were killed do to a file. It does not find
what people do (docs/security.md). A document is kept twice, so that damage costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, Generic, TypeVar

import msgspec

from retrograde.errors import RecordingError
from retrograde.recording.folder import Folder, NotPlain

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Document = TypeVar("Document")

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 1 << 20


class Damaged(Exception):
    """Derived data is not what was written, or of another version: it is to be made anew."""


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    crc32: str
    content: msgspec.Raw


def is_damage(error: Exception) -> bool:
    """Whether an error met while reading is the file's: not a limit reached or a permission."""
    if isinstance(error, OSError):
        return isinstance(error, NotPlain) or error.errno in (errno.EIO, errno.ENOTDIR)
    return isinstance(error, Damaged)


def checksum(data: ReadableBuffer) -> int:
    """Return the CRC-32 of `data`."""
    return zlib.crc32(data)


def checksum_of(file: BinaryIO) -> int:
    """Return the CRC-32 of what is left to read of `file`."""
    crc = 0
    while data := file.read(_AT_ONCE):
        crc = zlib.crc32(data, crc)
    return crc


def seal(document: object) -> bytes:
    """Return a document of msgspec structs or builtin types as JSON with its checksum."""
    content = msgspec.json.encode(document)
    return b'{"crc32": "%08x", "content": %s}\n' % (checksum(content), content)


def unseal(data: bytes, kind: type[Document]) -> Document:
    """Return what `seal` made into `data`; raises Damaged where that is something else."""
    try:
        return msgspec.json.decode(_content(data), type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(str(error)) from error


class Kept(Generic[Document]):
    """A document in two sealed files of a folder: `NAME.json` and `NAME.copy.json`.

    Either may be of one change before, where a writer was killed.
    """

    def __init__(self, folder: Folder, name: str, kind: type[Document], limit: int) -> None:
        """Files of more than `limit` bytes are not read."""
        self._folder = folder
        self._names = (name, copy_of(name))
        self._kind = kind
        self._limit = limit

    def read(self) -> Document:
        """Return the document; a file that is damaged or missing is made anew from the other.

        Raises FileNotFoundError where neither is there, Damaged where neither can be used,
        and OSError where a limit or a permission is in the way.
        """
        whole: list[bytes] = []
        lost: list[str] = []
        missing: list[str] = []
        for name in self._names:
            try:
                data = self._folder.read(name, self._limit)
                _content(data)
                whole.append(data)
            except FileNotFoundError:
                missing.append(name)
            except (OSError, Damaged) as error:
                if not is_damage(error):
                    raise
                lost.append(name)
        if not whole:
            if lost:
                raise Damaged(lost[0])
            raise FileNotFoundError(missing[0])
        document = unseal(whole[0], self._kind)
        for name in (*lost, *missing):
            with contextlib.suppress(OSError, RecordingError):
                self._folder.replace(name, whole[0])
        for name in lost:
            _log.warning("%s was damaged: its copy is used.", self._folder.path / name)
        return document

    def write(self, document: Document) -> None:
        """Keep `document` in place of what is there; raises as `Folder.replace` does."""
        for name in reversed(self._names):
            self._folder.replace(name, seal(document))


def copy_of(name: str) -> str:
    """Return the name of the second file of the document `name`."""
    return f"{name.removesuffix('.json')}.copy.json"


def _content(data: bytes) -> msgspec.Raw:
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(str(error)) from error
    if f"{checksum(sealed.content):08x}" != sealed.crc32:
        raise Damaged("its checksum is another")
    return sealed.content
