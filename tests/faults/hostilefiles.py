"""What a stranger may put in place of files of a recording, of an archive and of a cache."""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

from retrograde.recording.archive import zstd
from retrograde.recording.sealed import seal
from tests.damage import (
    break_states,
    document,
    move_positions,
    need_more,
    repeat_sums,
    rewrite,
)
from tests.damage import spoil as put_in_place
from tests.faults.place import Place
from tests.hostile import KINDS, make_victim, put

Spoil = Callable[[Place], object]
Members = list[tuple[tarfile.TarInfo, bytes]]
Edit = Callable[[Members], object]

OWN = ("manifest.json", "replay.log", "console.log", "machine.qcow2")
VICTIM = "victim"


def victim_of(place: Place) -> Path:
    """Where what must not be touched is."""
    return place.root / VICTIM


# The recording's own files.


def own_files() -> Iterator[tuple[str, Spoil]]:
    """Yield names and spoilers: each recording is refused."""
    for name in (*OWN, "inputs/*"):
        for kind in KINDS:
            yield f"{kind} as {name}", _special(name, kind)
        if name != "manifest.json":
            yield f"no {name}", _changed_own(name, Path.unlink)
            yield f"{name} empty", _changed_own(name, lambda path: path.write_bytes(b""))
            yield f"{name} with a byte more", _changed_own(name, _append)
    yield "inputs elsewhere", _inputs_elsewhere
    for number in range(20):
        yield f"log flipped {number}", _flipped_log(number)
        yield f"log cut {number}", _cut_log(number)


def images() -> Iterator[tuple[str, Spoil]]:
    """Yield names and what has an image lead elsewhere: refused even where forced."""
    for kind in ("data file", "backing file"):
        yield f"with a {kind}", _leading_image(kind)


def _own(place: Place, name: str) -> Path:
    (path,) = place.recording.glob(name)
    return path


def _changed_own(name: str, change: Callable[[Path], object]) -> Spoil:
    return lambda place: change(_own(place, name))


def _special(name: str, kind: str) -> Spoil:
    return _changed_own(name, functools.partial(put, kind))


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _inputs_elsewhere(place: Place) -> None:
    inputs = place.recording / "inputs"
    inputs.rename(victim_of(place) / "inputs")
    inputs.symlink_to(victim_of(place) / "inputs")


def _flipped_log(number: int) -> Spoil:
    def spoil(place: Place) -> None:
        rng, path = Random(number), place.recording / "replay.log"
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

    return spoil


def _cut_log(number: int) -> Spoil:
    def spoil(place: Place) -> None:
        path = place.recording / "replay.log"
        os.truncate(path, Random(number).randrange(path.stat().st_size))

    return spoil


def _leading_image(kind: str) -> Spoil:
    return lambda place: _lead(kind, place.recording / "machine.qcow2", place)


def _lead(kind: str, image: Path, place: Place) -> None:
    """Make `image` a qcow2 image that has its data in, or is based on, the victim's notes."""
    target = victim_of(place) / "notes.txt"
    content = target.read_bytes()
    options = ["-o", f"data_file={target}"]
    if kind == "backing file":
        options = ["-b", str(target), "-F", "raw", "-u"]
    made = image.with_name("made.qcow2")
    words = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(made), "1M"]
    subprocess.run(words, check=True)
    target.write_bytes(content)
    made.replace(image)


# Archives.


def _edited(edit: Edit) -> Spoil:
    """Return what rewrites the archive with its members edited."""

    def spoil(place: Place) -> None:
        with (
            zstd.open(place.packed, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            members = [(one, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]
        edit(members)
        with zstd.open(place.packed, "wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
            for member, data in members:
                tar.addfile(member, io.BytesIO(data))

    return spoil


def _rewritten(rewrite: Callable[[bytes], bytes]) -> Spoil:
    return lambda place: place.packed.write_bytes(rewrite(place.packed.read_bytes()))


def _replaced(kind: str) -> Spoil:
    return lambda place: put(kind, place.packed)


def _stream(*pieces: bytes) -> Spoil:
    """Return what makes the archive one of these raw bytes of tar, before what it holds."""

    def spoil(place: Place) -> None:
        with zstd.open(place.packed, "rb") as stream:
            content = stream.read()
        with zstd.open(place.packed, "wb") as stream:
            stream.write(b"".join(pieces) + content)

    return spoil


def _plain(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, data


def _header(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    member = tarfile.TarInfo("h")
    member.type, member.size = kind, len(data) if size is None else size
    return member.tobuf(tarfile.GNU_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def _pax(**headers: str) -> Edit:
    def edit(members: Members) -> None:
        members[1][0].pax_headers = headers

    return edit


def _add(name: str) -> Edit:
    return lambda members: members.append(_plain(name))


def _insert(kind: bytes, at: int) -> Edit:
    name = "inputs/x" if at else "manifest.json"
    return lambda members: members.insert(at, _plain(name, b"", type=kind, linkname="/etc/passwd"))


def _cut(keep: float) -> Spoil:
    return _rewritten(lambda data: data[: int(keep * len(data))])


def _first(name: str) -> bytes:
    """Return the header of a member called `name` with 10 TB."""
    member = tarfile.TarInfo(name)
    member.size = 10 << 40
    return member.tobuf(tarfile.GNU_FORMAT)


_NAMES = (
    *("../evil", "../../evil", "/tmp/evil", "inputs/../../evil", "cache/index/meta.json"),
    *(
        "cache",
        "replay.log/",
        "./replay.log",
        "x\x1b[2J",
        "\u202ex",
        "inputs/",
        "reserve",
        "a" * 300,
    ),
    *("inputs/x", "manifest.json.new", "C:\\evil", "inputs//x"),
)

_TYPES = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "directory": tarfile.DIRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "disk": tarfile.BLKTYPE,
    "terminal": tarfile.CHRTYPE,
    "contiguous file": tarfile.CONTTYPE,
    "sparse file": tarfile.GNUTYPE_SPARSE,
    "unknown": b"Z",
}

_EDITS: Mapping[str, Edit] = {
    **{f"member {name!r}": _add(name) for name in _NAMES},
    **{
        f"{name} as {where}": _insert(kind, at)
        for name, kind in _TYPES.items()
        for where, at in (("first", 0), ("second", 1))
    },
    "manifest last": lambda m: m.append(m.pop(0)),
    "manifest twice": lambda m: m.append(m[0]),
    "no manifest": lambda m: m.pop(0),
    "nothing": lambda m: m.clear(),
    "manifest of nothing": lambda m: m.__setitem__(0, _plain("manifest.json", b"{}")),
    "manifest of 2 MB": lambda m: m.__setitem__(0, _plain("manifest.json", bytes(2 << 20))),
    "no log": lambda m: m.pop(1),
    "no input": lambda m: m.pop(),
    "a byte more": lambda m: m.__setitem__(1, _plain(m[1][0].name, m[1][1] + b"x")),
    "a byte less": lambda m: m.__setitem__(1, _plain(m[1][0].name, m[1][1][:-1])),
    "another log": lambda m: m.__setitem__(1, _plain(m[1][0].name, bytes(len(m[1][1])))),
    "another input": lambda m: m.__setitem__(-1, _plain(m[-1][0].name, bytes(len(m[-1][1])))),
    "a member twice": lambda m: m.insert(1, m[1]),
    "pax path": _pax(path="../../evil"),
    "pax path of NUL": _pax(path="a\0b"),
    "pax size": _pax(size="junk"),
    "pax sparse map": _pax(**{"GNU.sparse.map": "a,b", "GNU.sparse.size": "1"}),
    "pax sparse size": _pax(**{"GNU.sparse.size": "junk"}),
    "pax sparse 1.0": _pax(
        **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    ),
    "pax of 100 kB": _pax(comment="x" * 100_000),
}


def archives() -> Iterator[tuple[str, Spoil]]:
    """Yield names and what spoils a packed recording: each is refused, and leaves nothing."""
    yield from ((name, _edited(edit)) for name, edit in _EDITS.items())
    for name, kind in {
        "pax": tarfile.XHDTYPE,
        "global pax": tarfile.XGLTYPE,
        "long name": tarfile.GNUTYPE_LONGNAME,
        "long link": tarfile.GNUTYPE_LONGLINK,
    }.items():
        yield f"{name} header of 1 TB", _stream(_header(kind, b"", 1 << 40))
        yield f"{name} header of junk", _stream(_header(kind, b"junk"))
    yield "5000 digits", _stream(_header(tarfile.XHDTYPE, b"9" * 5000 + b" path=x\n"))
    yield "pax of bad UTF-8", _stream(_header(tarfile.XHDTYPE, b"17 path=\xff\xfe\n"))
    yield "3000 headers", _stream(*[_header(tarfile.XHDTYPE, b"9 path=x\n")] * 3000)
    yield "10 TB", _stream(_first("manifest.json"))
    yield "10 TB of another", _stream(_first("replay.log"))
    yield "garbage before", _stream(Random(1).randbytes(1024))
    yield "no archive", _rewritten(lambda _: Random(2).randbytes(4096))
    yield "not there", lambda place: place.packed.unlink()
    yield "empty", _rewritten(lambda _: b"")
    yield "garbage after", _rewritten(lambda data: data + b"garbage")
    yield "a second frame", _rewritten(lambda data: data + zstd.compress(bytes(1 << 20)))
    # A pipe is a way to give an archive, and waits for its writer.
    for what in ("endless", "dangling", "directory"):
        yield f"{what} in its place", _replaced(what)
    for number in range(10):
        yield f"cut {number}", _cut(Random(number).random())


# Caches. None does harm, whatever the answer.


def caches() -> Iterator[tuple[str, Spoil]]:
    """Yield names and what spoils the cache of a recording."""
    places = (
        *("checkpoints/index.json", "checkpoints/pages.bin", "checkpoints/tables.bin"),
        *("checkpoints/machine.qcow2", "index/meta.json", "index/calls/*", "index/written/*"),
        "bookmarks.json",
    )
    for name in places:
        for kind in KINDS:
            yield f"{kind} as {name}", _cached(name, functools.partial(put, kind))
    for name in ("index", "index/calls", "checkpoints"):
        yield f"{name} elsewhere", _cached(name, None)
    yield "cache elsewhere", _cached(".", None)
    for name in ("index/meta.json", "checkpoints/index.json", "bookmarks.json"):
        for what, content in {
            "empty": b"",
            "list": b"[]",
            "null": b"null",
            "deep": b"[" * 100_000,
            "large": b" " * (70 << 20),
            "binary": bytes(range(256)),
        }.items():
            yield f"{what} as {name}", _cached(name, _written(content))
    for name in ("..", "../../../victim", "/etc", ".", "\x1b[2J", "../../inputs"):
        yield f"table {name!r}", _cached("index/meta.json", _versions(name))
    for kind in ("data file", "backing file"):
        yield f"cached image with a {kind}", _cached_image(kind)
    for what in ("text", "other columns", "zeros", "cut"):
        yield f"parquet: {what}", _cached("index/calls/*", _parquet(what))
        yield f"parquet of written: {what}", _cached("index/written/*", _parquet(what))
    yield "positions of other checkpoints", _cached("checkpoints", move_positions)
    yield "states that QEMU refuses", _cached("checkpoints", break_states)
    yield "an image that no QEMU opens", _cached("checkpoints", need_more)
    yield "bookmarks with escapes", _cached("bookmarks.json", _bookmarks)


def _cached(name: str, change: Callable[[Path], object] | None) -> Spoil:
    def spoil(place: Place) -> None:
        cache = place.recording / "cache"
        found = sorted(cache.glob(name)) if "*" in name else [cache / name]
        if change:
            change(found[0])
        else:
            shutil.rmtree(found[0])
            Path(os.path.normpath(found[0])).symlink_to(victim_of(place))

    return spoil


def _written(content: bytes) -> Callable[[Path], object]:
    return lambda path: put_in_place(path, content)


def _versions(name: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        versions = document(path)["versions"] | {name: 1}
        rewrite(path, versions=versions, recording="0" * 64)

    return change


def _cached_image(kind: str) -> Spoil:
    def spoil(place: Place) -> None:
        checkpoints = place.recording / "cache" / "checkpoints"
        _lead(kind, checkpoints / "machine.qcow2", place)
        repeat_sums(checkpoints)

    return spoil


def _parquet(what: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        import duckdb

        if what == "cut":
            os.truncate(path, path.stat().st_size // 2)
        elif what == "zeros":
            path.write_bytes(bytes(path.stat().st_size))
        else:
            rows = "'x' AS position" if what == "text" else "1 AS nothing_known"
            duckdb.execute(f"COPY (SELECT {rows}) TO '{path}' (FORMAT parquet)")

    return change


def _bookmarks(path: Path) -> None:
    put_in_place(path, seal({"\x1b]0;owned\x07": 5}))


def prepare(place: Place) -> None:
    """Make the victim of a place."""
    make_victim(victim_of(place))
