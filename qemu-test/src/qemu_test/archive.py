"""Unpack archives."""

from __future__ import annotations

import io
import lzma
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlparse

from .asset import Asset
from .uncompress import zstd_bytes

Archive = str | Path | Asset | IO[bytes]

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


def guess_archive_format(archive: Archive) -> str:
    """Return `tar`, `zip`, `cpio` or `deb` after the name of `archive`.

    Raises ValueError for another name, and for a file object, which has none.
    """
    name = urlparse(archive.url).path if isinstance(archive, Asset) else str(archive)
    suffixes = Path(name).suffixes
    if ".tar" in suffixes[-2:] or suffixes[-1:] in ([".tgz"], [".tbz2"], [".txz"]):
        return "tar"
    if suffixes[-1:] in ([".zip"], [".cpio"], [".deb"]):
        return suffixes[-1][1:]
    raise ValueError(f"{name!r} does not tell what archive it is: give its `format`.")


def archive_extract(
    archive: Archive, dest_dir: str, format: str | None = None, member: str | None = None
) -> None:
    """Unpack `archive`, all of it or one `member`, into `dest_dir`.

    `format` is `tar` (compressed or not), `zip`, `cpio` or `deb`. A cpio archive may be a
    file object and is unpacked whole. Raises ValueError for what is none of these.
    """
    kind = format or guess_archive_format(archive)
    if isinstance(archive, Asset):
        archive = archive.fetch()
    Path(dest_dir).mkdir(parents=True, exist_ok=True)
    if kind == "cpio":
        if member is not None:
            raise ValueError("A single member of a cpio archive cannot be unpacked.")
        return _extract_cpio(archive, dest_dir)
    if not isinstance(archive, (str, Path)):
        raise ValueError(f"A {kind} archive is given by its path.")
    if kind == "tar":
        return _extract_tar(tarfile.open(archive), dest_dir, member)
    if kind == "zip":
        return _extract_zip(Path(archive), dest_dir, member)
    if kind == "deb":
        return _extract_deb(Path(archive), dest_dir, member)
    raise ValueError(f"{kind!r} is none of tar, zip, cpio and deb.")


def _extract_tar(archive: tarfile.TarFile, folder: str, member: str | None) -> None:
    with archive:
        members = archive.getmembers() if member is None else [archive.getmember(member)]
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, members, filter="data")
        else:  # Python before 3.11.4
            for one in members:
                _check_inside(one, Path(folder).resolve())
            archive.extractall(folder, members)  # noqa: S202


def _check_inside(member: tarfile.TarInfo, folder: Path) -> None:
    """Refuse, with a TarError, what is no file, folder or link inside `folder`."""
    place = (folder / member.name).resolve()
    inside = place.is_relative_to(folder)
    if member.issym():
        inside = inside and (place.parent / member.linkname).resolve().is_relative_to(folder)
    elif member.islnk():
        inside = inside and (folder / member.linkname).resolve().is_relative_to(folder)
    if not inside or not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise tarfile.TarError(f"{member.name!r} would leave the folder it is unpacked into.")


def _extract_zip(path: Path, folder: str, member: str | None) -> None:
    with zipfile.ZipFile(path) as archive:
        # zipfile itself keeps members from leaving the folder.
        archive.extractall(folder, None if member is None else [member])  # noqa: S202


def _extract_cpio(archive: str | Path | IO[bytes], folder: str) -> None:
    data = Path(archive).read_bytes() if isinstance(archive, (str, Path)) else archive.read()
    subprocess.run(
        ["cpio", "--extract", "--make-directories", "--no-absolute-filenames", "--quiet"],
        input=data,
        cwd=folder,
        check=True,
    )


def _extract_deb(path: Path, folder: str, member: str | None) -> None:
    """Unpack the files of a Debian package: an ar archive with data.tar.* in it (deb(5))."""
    for name, data in _ar_members(path):
        if name.startswith("data.tar"):
            inner = tarfile.open(fileobj=_uncompressed(name, data))  # noqa: SIM115
            if member is not None and not member.startswith("./"):
                member = f"./{member.lstrip('/')}"
            return _extract_tar(inner, folder, member)
    raise ValueError(f"{path} is no Debian package.")


def _ar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
            return
        while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
            size = int(header[48:58])
            yield header[:16].decode().rstrip(" /"), file.read(size)
            file.seek(size % 2, io.SEEK_CUR)


def _uncompressed(name: str, data: bytes) -> BinaryIO:
    suffix = name.removeprefix("data.tar")
    if suffix == ".xz":
        data = lzma.decompress(data)
    elif suffix == ".gz":
        data = zlib.decompress(data, wbits=31)
    elif suffix == ".zst":
        data = zstd_bytes(data)
    return io.BytesIO(data)
