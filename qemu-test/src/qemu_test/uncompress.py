"""Uncompress single files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .asset import Asset

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compressed = str | Path | Asset

_FORMATS = {".xz": "xz", ".gz": "gz", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}


def guess_uncompress_format(compressed: Compressed) -> str:
    """Return `xz`, `gz`, `zstd` or `bz2` after the name; raises ValueError for another."""
    name = urlparse(compressed.url).path if isinstance(compressed, Asset) else str(compressed)
    try:
        return _FORMATS[Path(name).suffix]
    except KeyError:
        raise ValueError(f"{name!r} does not tell how it is compressed: give `format`.") from None


def uncompress(compressed: Compressed, uncompressed: str, format: str | None = None) -> None:
    """Uncompress the file `compressed` into the file `uncompressed`, which is left if there.

    `format` is `xz`, `gz`, `zstd` or `bz2`.
    """
    kind = format or guess_uncompress_format(compressed)
    if Path(uncompressed).exists():
        return
    path = compressed.fetch() if isinstance(compressed, Asset) else str(compressed)
    with _opener(kind)(path) as packed, Path(uncompressed).open("wb") as file:
        shutil.copyfileobj(packed, file)


def zstd_bytes(data: bytes) -> bytes:
    """Return `data`, which zstd compressed, as it was."""
    return zstd.decompress(data)


def _opener(kind: str) -> Callable[[str], Any]:
    openers: dict[str, Callable[[str], Any]] = {
        "xz": lzma.open,
        "gz": gzip.open,
        "zstd": zstd.open,
        "bz2": bz2.open,
    }
    if kind not in openers:
        raise ValueError(f"{kind!r} is none of {', '.join(openers)}.")
    return openers[kind]
