"""Packed recordings: there and back, and what others may have put into them."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograde.errors import (
    EnvironmentLacks,
    InputChanged,
    RecordingError,
    RetrogradeError,
    UsageError,
)
from retrograde.recording import archive as module
from retrograde.recording.archive import pack, unpack, zstd
from retrograde.recording.bundle import Recording
from retrograde.recording.manifest import FileDigest, encode_manifest
from tests.recording.handmade import make_recording, replaced

Edit = Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "a.retro")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def edited(recording: Recording, edit: Edit) -> Path:
    """Pack `recording` and let `edit` change the list of members with their bytes."""
    good, bad = recording.path.parent / "good.tar.zst", recording.path.parent / "bad.tar.zst"
    pack(recording, good)
    with zstd.open(good, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    edit(members)
    with zstd.open(bad, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return bad


def plain(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def assert_refused(packed: Path, match: str, error: type[RetrogradeError] = RecordingError) -> None:
    """Unpacking says why, and leaves nothing, neither here nor elsewhere."""
    folder = packed.parent / "into" / "b.retro"
    folder.parent.mkdir()
    with pytest.raises(error, match=match) as caught:
        unpack(packed, folder)
    assert caught.value.remedy
    assert list(folder.parent.iterdir()) == []
    assert not (packed.parent / "evil").exists()


def test_there_and_back(recording: Recording, tmp_path: Path) -> None:
    (recording.path / "cache").mkdir()
    (recording.path / "cache" / "index").write_bytes(b"not packed")
    pack(recording, tmp_path / "a.tar.zst")
    restored = unpack(tmp_path / "a.tar.zst", tmp_path / "b.retro")
    expected = contents(recording.path)
    del expected["cache/index"]
    assert contents(restored.path) == expected
    assert restored.manifest == recording.manifest
    assert restored.complete


def test_same_recording_same_bytes(recording: Recording, tmp_path: Path) -> None:
    pack(recording, tmp_path / "1.tar.zst")
    restored = unpack(tmp_path / "1.tar.zst", tmp_path / "b.retro")
    restored.log_path.touch()
    pack(restored, tmp_path / "2.tar.zst")
    assert (tmp_path / "1.tar.zst").read_bytes() == (tmp_path / "2.tar.zst").read_bytes()


def test_linked_inputs_are_packed(recording: Recording, tmp_path: Path) -> None:
    kernel = recording.input_path("kernel")
    kernel.rename(tmp_path / "big-kernel")
    kernel.symlink_to(tmp_path / "big-kernel")
    pack(recording, tmp_path / "a.tar.zst")
    restored = unpack(tmp_path / "a.tar.zst", tmp_path / "b.retro")
    assert not restored.input_path("kernel").is_symlink()
    assert restored.input_path("kernel").read_bytes() == (tmp_path / "big-kernel").read_bytes()


def test_unfinished_recording(recording: Recording, tmp_path: Path) -> None:
    """What a killed recorder left has no digests yet; it gets them on the way."""
    manifest = replaced(recording, complete=False, ending="killed", files={}, events={})
    (recording.path / "manifest.json").write_bytes(encode_manifest(manifest))
    (recording.path / "reserve").write_bytes(bytes(100))
    partial = recording.path.rename(tmp_path / "a.retro.partial")
    pack(Recording.open(partial), tmp_path / "a.tar.zst")
    restored = unpack(tmp_path / "a.tar.zst", tmp_path / "b.retro")
    assert not restored.complete
    assert len(restored.manifest.files) == 3
    assert "reserve" not in contents(restored.path)
    shutil.rmtree(partial)


def test_damaged_recording_is_not_packed(recording: Recording, tmp_path: Path) -> None:
    recording.console_path.write_bytes(b"other")
    with pytest.raises(RecordingError, match="not what was recorded"):
        pack(recording, tmp_path / "a.tar.zst")
    recording.input_path("kernel").write_bytes(b"other")
    with pytest.raises(InputChanged, match="changed"):
        pack(recording, tmp_path / "a.tar.zst")
    assert not (tmp_path / "a.tar.zst").exists()


def test_target_is_there(recording: Recording, tmp_path: Path) -> None:
    packed, link = tmp_path / "a.tar.zst", tmp_path / "link"
    pack(recording, packed)
    link.symlink_to("nowhere")
    for taken in (packed, link):
        with pytest.raises(UsageError, match="already there"):
            pack(recording, taken)
    for taken in (recording.path, link):
        with pytest.raises(UsageError, match="already there"):
            unpack(packed, taken)


def test_no_such_archive(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.tar.zst", "No such file", UsageError)


def test_archive_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "x.tar.zst").mkdir()
    assert_refused(tmp_path / "x.tar.zst", "Is a directory", UsageError)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda m: m.append(plain("../evil")), "not in its manifest"),
        (lambda m: m.append(plain("../../evil")), "not in its manifest"),
        (lambda m: m.append(plain("/tmp/evil")), "not in its manifest"),
        (lambda m: m.append(plain("inputs/../../evil")), "not in its manifest"),
        (lambda m: m.append(plain("cache/index")), "not in its manifest"),
        (lambda m: m.append(plain("replay.log")), "not in its manifest"),
        (lambda m: m.append(m[0]), "not in its manifest"),
        (lambda m: m.insert(1, special("inputs/kernel", tarfile.SYMTYPE, "/etc/passwd")), "plain"),
        (lambda m: m.insert(1, special("inputs", tarfile.SYMTYPE, "/tmp")), "plain"),
        (lambda m: m.insert(1, special("replay.log", tarfile.LNKTYPE, "manifest.json")), "plain"),
        (lambda m: m.append(special("dir", tarfile.DIRTYPE)), "plain"),
        (lambda m: m.append(special("pipe", tarfile.FIFOTYPE)), "plain"),
        (lambda m: m.append(special("disk", tarfile.BLKTYPE)), "plain"),
        (lambda m: m.insert(0, special("manifest.json", tarfile.SYMTYPE, "/etc/passwd")), "plain"),
        (lambda m: m.pop(0), "does not begin with a manifest"),
        (lambda m: m.clear(), "is empty"),
        (lambda m: m.pop(1), "has no replay.log"),
        (lambda m: m.pop(), "was packed without inputs"),
        (lambda m: m.__setitem__(0, plain("manifest.json", b"{}")), "not valid"),
        (lambda m: m.__setitem__(0, plain("manifest.json", bytes(2 << 20))), "absurdly large"),
        (lambda m: m.__setitem__(1, plain("replay.log", m[1][1] + b"x")), "bytes, not"),
        (lambda m: m.__setitem__(1, plain("replay.log", m[1][1][:-1])), "bytes, not"),
        (lambda m: m.__setitem__(2, plain("console.log", b"HELLO\n")), "not what was recorded"),
        (lambda m: m.__setitem__(-1, plain("inputs/kernel", b"KERNEL")), "not what was recorded"),
    ],
)
def test_hostile_archive(recording: Recording, edit: Edit, match: str) -> None:
    assert_refused(edited(recording, edit), match)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_header_bomb(recording: Recording, tmp_path: Path, kind: bytes) -> None:
    """A header is read into memory whole: its length must be refused before."""
    header = tarfile.TarInfo("bomb")
    header.type, header.size = kind, 1 << 40
    with zstd.open(tmp_path / "bomb.tar.zst", "wb") as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        stream.write(bytes(1 << 20))
    assert_refused(tmp_path / "bomb.tar.zst", "plain file")


def test_sparse_member(recording: Recording) -> None:
    """A few bytes that claim to be a terabyte of zeros."""

    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member, data = plain("replay.log", b"0\n0\n" + bytes(508))
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(1 << 40),
        }
        members[1] = member, data

    assert_refused(edited(recording, edit), "no file")


def test_the_first_file_that_is_another_is_the_last(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stranger's few bytes grow to is bounded by one file."""
    taken = []
    take = module._take_file

    def noted(member: tarfile.TarInfo, *others: Any) -> None:
        taken.append(member.name)
        take(member, *others)

    monkeypatch.setattr(module, "_take_file", noted)
    bad = edited(recording, lambda m: m.__setitem__(1, plain("replay.log", bytes(len(m[1][1])))))
    assert_refused(bad, "replay.log is not what was recorded")
    assert taken == ["replay.log"]


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b", "GNU.sparse.size": "1"},
        {"GNU.sparse.size": "junk"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
        {"size": "junk"},
    ],
)
def test_headers_that_make_no_sense(recording: Recording, headers: dict[str, str]) -> None:
    def spoil(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[1][0].pax_headers = headers

    assert_refused(edited(recording, spoil), "bad.tar.zst|bytes, not")


@pytest.mark.parametrize("record", [b"9" * 5000 + b" path=x\n", b"17 path=\xff\xfe\n"])
def test_header_records_that_make_no_sense(
    record: bytes, recording: Recording, tmp_path: Path
) -> None:
    assert_refused(spoilt(recording, tarfile.XHDTYPE, record, 1), "bad.tar.zst|bytes, not")


def test_headers_without_end(recording: Recording) -> None:
    """tarfile calls itself for each."""
    assert_refused(
        spoilt(recording, tarfile.XHDTYPE, b"9 path=x\n", 3000), "bad.tar.zst|bytes, not"
    )


def spoilt(recording: Recording, kind: bytes, data: bytes, count: int) -> Path:
    """An archive that begins with `count` headers about the next member."""
    bad = recording.path.parent / "bad.tar.zst"
    header, _ = special("h", kind)
    header.size = len(data)
    padded = data.ljust(-(-len(data) // 512) * 512, b"\0")
    with zstd.open(bad, "wb") as stream:
        stream.write(count * (header.tobuf() + padded))
    return bad


def test_more_than_the_disk_holds(recording: Recording) -> None:
    huge = {"replay.log": FileDigest(bytes=1 << 60, sha256="0" * 64)}
    manifest = replaced(recording, files={**recording.manifest.files, **huge})

    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[0] = plain("manifest.json", encode_manifest(manifest))

    assert_refused(edited(recording, edit), "has space for", EnvironmentLacks)


@pytest.mark.parametrize("keep", [0, 3, 50, -1, -20])
def test_truncated(recording: Recording, tmp_path: Path, keep: int) -> None:
    pack(recording, tmp_path / "a.tar.zst")
    data = (tmp_path / "a.tar.zst").read_bytes()
    (tmp_path / "cut.tar.zst").write_bytes(data[:keep])
    assert_refused(tmp_path / "cut.tar.zst", "packed recording|is empty")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Nothing but errors of ours, and never a recording other than the packed one."""
    place = tmp_path_factory.mktemp("flip")
    recording = make_recording(place / "a.retro")
    pack(recording, place / "a.tar.zst")
    packed = bytearray((place / "a.tar.zst").read_bytes())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (place / "b.tar.zst").write_bytes(packed)
    try:
        restored = unpack(place / "b.tar.zst", place / "b.retro")
    except RetrogradeError:
        assert not (place / "b.retro").exists()
    else:
        assert contents(restored.path) == contents(recording.path)
    assert not (place / "b.retro.partial").exists()


def test_bytes_after_the_end(recording: Recording, tmp_path: Path) -> None:
    pack(recording, tmp_path / "a.tar.zst")
    with (tmp_path / "a.tar.zst").open("ab") as packed:
        packed.write(zstd.compress(bytes(1 << 30)))
    assert_refused(tmp_path / "a.tar.zst", "goes on after its end")


def test_level_is_worth_it() -> None:
    """Zeros, which a snapshot image is full of, must cost nothing."""
    assert len(zstd.compress(bytes(1 << 20), module.LEVEL)) < 1000
