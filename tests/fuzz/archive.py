"""Fuzz target: packed recordings, as tar (which is compressed here) and as bytes of zstd."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from retrograde.errors import EnvironmentLacks, RecordingError, UsageError
from retrograde.recording.archive import pack, unpack, zstd
from tests.fuzz.mutation import change_bytes
from tests.recording.handmade import make_recording

BLOCK = tarfile.BLOCKSIZE
_CHECKSUM = slice(148, 156)


def _seeds() -> tuple[bytes, ...]:
    """Return packed recordings as tar after a zero byte, and one compressed after a one."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder, "a.tar.zst")
        pack(make_recording(Path(folder, "a.retro")), packed)
        compressed = packed.read_bytes()
    tar = zstd.decompress(compressed)
    manifest = tar.index(b"replay.log", BLOCK) // BLOCK * BLOCK
    kinds = [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]
    kinds += [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    headers = (_member(kind) for kind in kinds)
    return (
        b"\0" + tar,
        b"\1" + compressed,
        *(b"\0" + header + tar for header in headers),
        *(b"\0" + tar[:manifest] + _member(kind) + tar[manifest:] for kind in kinds),
    )


def _member(kind: bytes) -> bytes:
    info = tarfile.TarInfo("replay.log")
    info.type, info.linkname = kind, "/etc/passwd"
    body = b"31 path=replay.log\n30 GNU.sparse.map=0,1\n12 size=2e1\n"
    info.size = len(body) if kind in (tarfile.XHDTYPE, tarfile.XGLTYPE) else 0
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(body))
    return output.getvalue()[: BLOCK * (1 + bool(info.size))]


MOST = 16384

SEEDS = _seeds()


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change headers of a tar so that they stay headers, and other bytes."""
    headers = [at for at in range(1, len(data), BLOCK) if data[at + 257 : at + 262] == b"ustar"]
    if not headers or data[:1] == b"\1":
        return change_bytes(data, chance)
    at = chance.choice(headers)
    match chance.randrange(4):
        case 0:
            other = chance.choice(headers)
            end = chance.choice((other + BLOCK, other + 2 * BLOCK))
            return data[:at] + data[other:end] + data[at:]
        case 1:
            return data[:at] + data[at + BLOCK * chance.randint(1, 2) :]
        case 2:
            field = chance.choice(_FIELDS)
            value = chance.choice(_VALUES) or chance.randbytes(chance.randint(1, 12))
            header = bytearray(data[at : at + BLOCK])
            header[field] = value[: field.stop - field.start].ljust(field.stop - field.start, b"\0")
            return data[:at] + _summed(header) + data[at + BLOCK :]
        case _:
            stop = min(len(data), at + BLOCK + 512)
            body = change_bytes(data[at + BLOCK : stop], chance)[: stop - at - BLOCK]
            return data[: at + BLOCK] + body.ljust(stop - at - BLOCK, b"\0") + data[stop:]


_FIELDS = (slice(0, 100), slice(100, 108), slice(124, 136), slice(156, 157), slice(157, 257))
_FIELDS += (slice(257, 265), slice(329, 337), slice(345, 500), slice(386, 410), slice(482, 495))
_VALUES = (
    *(b"", b"manifest.json", b"replay.log", b"inputs/kernel", b"../x", b"/etc/passwd", b"\xff\xfe"),
    *(b"77777777777", b"0", b"-1", b"\x80" + bytes(10) + b"\1", b"\xff" * 12, b"10000", b"1e9"),
    *(
        b"0",
        b"1",
        b"2",
        b"5",
        b"6",
        b"7",
        b"S",
        b"L",
        b"K",
        b"x",
        b"g",
        b"X",
        b"\0",
        b"ustar\x0000",
    ),
)


def _summed(header: bytearray) -> bytes:
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def _stored(data: bytes) -> bytes:
    """Return `data` as a zstd frame of blocks that are not compressed (RFC 8878)."""
    blocks = [data[at : at + _BLOCK_MOST] for at in range(0, len(data), _BLOCK_MOST)] or [b""]
    last = len(blocks) - 1
    heads = (
        (len(one) << 3 | (number == last)).to_bytes(3, "little")
        for number, one in enumerate(blocks)
    )
    return b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(map(b"".join, zip(heads, blocks, strict=True)))


_BLOCK_MOST = 1 << 17


def open_target(place: Path) -> Callable[[bytes], None]:
    archive, target, again = place / "a.tar.zst", place / "a.retro", place / "b.tar.zst"

    def one_input(data: bytes) -> None:
        body = data[1:]
        archive.write_bytes(body if data[:1] == b"\1" else _stored(body))
        try:
            recording = unpack(archive, target)
        except (RecordingError, UsageError, EnvironmentLacks) as error:
            assert len(str(error)) < 1000
        else:
            again.unlink(missing_ok=True)
            pack(recording, again)
            shutil.rmtree(target)
            assert unpack(again, target).manifest == recording.manifest
            again.unlink()
            shutil.rmtree(target)
        assert [one.name for one in place.iterdir()] == [archive.name]

    return one_input
