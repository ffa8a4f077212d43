"""What stands in a directory is reached by plain names, and no link is followed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from retrograde.errors import InternalError, RecordingError
from retrograde.recording.folder import Folder, NotPlain, open_regular
from tests.hostile import KINDS, fingerprint, make_victim, put


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "here").mkdir()
    return Folder.at(tmp_path / "here")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return make_victim(tmp_path / "victim")


def everything(_name: str) -> bool:
    return True


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "../victim", "a\0b"])
def test_what_is_no_plain_name_cannot_be_said(name: str, folder: Folder) -> None:
    for use in (folder.folder, folder.own_folder, folder.open, folder.create, folder.append):
        with pytest.raises(InternalError, match="is no name"):
            use(name)
    for change in (folder.unlink, folder.stat, lambda n: folder.remove(n, everything)):
        with pytest.raises(InternalError, match="is no name"):
            change(name)
    for pair in ((name, "x"), ("x", name)):
        with pytest.raises(InternalError, match="is no name"):
            folder.rename(*pair)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_only_plain_files_are_read(kind: str, folder: Folder) -> None:
    put(kind, folder.path / "x")
    for read in (
        lambda: folder.open("x"),
        lambda: folder.read("x", 10),
        lambda: open_regular(folder.path / "x"),
    ):
        with pytest.raises(NotPlain):
            read()
    assert folder.files() == []


def test_devices_and_pipes_are_not_read_through_links_either(folder: Folder) -> None:
    put("endless", folder.path / "x")
    os.mkfifo(folder.path / "pipe")
    (folder.path / "y").symlink_to("pipe")
    for name in ("x", "y"):
        with pytest.raises(NotPlain):
            folder.open(name, follow=True)
    (folder.path / "file").write_bytes(b"content")
    (folder.path / "z").symlink_to("file")
    with folder.open("z", follow=True) as file:
        assert file.read() == b"content"


def test_no_more_is_read_than_was_allowed(folder: Folder) -> None:
    (folder.path / "x").write_bytes(b"0123456789")
    assert folder.read("x", 10) == b"0123456789"
    with pytest.raises(NotPlain, match="too large"):
        folder.read("x", 9)
    os.truncate(folder.path / "x", 1 << 42)
    with pytest.raises(NotPlain, match="too large"):
        folder.read("x", 9)


def test_directories_are_not_entered_through_links(folder: Folder, victim: Path) -> None:
    before = fingerprint(victim)
    (folder.path / "x").symlink_to(victim)
    for make in (False, True):
        with pytest.raises(NotPlain, match="It is a link"):
            folder.folder("x", make=make)
    own = folder.own_folder("x")
    own.replace("meta.json", b"ours")
    assert not (folder.path / "x").is_symlink()
    folder.remove("x", everything)
    assert (folder.names(), fingerprint(victim)) == ([], before)


def test_a_link_is_removed_and_not_what_it_leads_to(folder: Folder, victim: Path) -> None:
    before = fingerprint(victim)
    for name, to in (("x", victim), ("y", victim / "meta.json")):
        (folder.path / name).symlink_to(to)
        folder.remove(name, everything)
    (folder.path / "z").mkdir()
    (folder.path / "z" / "blocks").symlink_to(victim / "blocks")
    folder.remove("z", everything)
    assert (folder.names(), fingerprint(victim)) == ([], before)


@pytest.mark.parametrize("foreign", ["notes.txt", "ours/deeper"])
def test_what_is_not_ours_is_never_removed(foreign: str, folder: Folder) -> None:
    place = folder.path / "x"
    (place / foreign).parent.mkdir(parents=True)
    (place / foreign).write_bytes(b"precious")
    (place / "ours.bin").write_bytes(b"")
    before = fingerprint(folder.path)
    with pytest.raises(RecordingError, match="did not make"):
        folder.remove("x", lambda name: name.startswith("ours"))
    assert fingerprint(folder.path) == before


def test_nothing_is_written_through_links(folder: Folder, victim: Path) -> None:
    before = fingerprint(victim)
    (folder.path / "x").symlink_to(victim / "notes.txt")
    for write in (folder.create, folder.append):
        with pytest.raises(OSError, match=r"File exists|symbolic links"):
            write("x")
    folder.replace("x", b"ours")
    assert folder.read("x", 10) == b"ours"
    assert fingerprint(victim) == before
    assert folder.names() == ["x"]


def test_a_directory_is_not_replaced_by_a_file(folder: Folder) -> None:
    put("directory", folder.path / "x")
    with pytest.raises(RecordingError, match="is a directory"):
        folder.replace("x", b"ours")
    assert fingerprint(folder.path).keys() == {"x", "x/precious"}


def test_what_was_looked_at_is_what_is_used(folder: Folder, victim: Path, tmp_path: Path) -> None:
    """A directory that becomes a link between check and use stays the directory it was."""
    before = fingerprint(victim)
    inner = folder.folder("cache", make=True)
    inner.replace("meta.json", b"ours")
    reader = inner.open("meta.json")
    (folder.path / "cache").rename(tmp_path / "moved")
    (folder.path / "cache").symlink_to(victim)
    assert reader.read() == inner.read("meta.json", 10) == b"ours"
    reader.close()
    inner.replace("index.json", b"ours")
    inner.unlink("meta.json")
    inner.make_temporary("checkpoints.")
    assert len(list((tmp_path / "moved").iterdir())) == 2
    folder.remove("cache", everything)
    assert fingerprint(victim) == before


def test_a_file_swapped_for_a_pipe_in_between_is_noticed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the opening, which must then not wait for a writer."""
    (folder.path / "x").write_bytes(b"")
    opens = os.open

    def swapped(name, flags, *rest, **kwargs):
        if name == "x":
            put("pipe", folder.path / "x")
        return opens(name, flags, *rest, **kwargs)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(NotPlain):
        folder.open("x")


def test_a_file_swapped_for_a_link_in_between_is_not_followed(
    folder: Folder, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / "x").write_bytes(b"")
    opens = os.open

    def swapped(name, flags, *rest, **kwargs):
        if name == "x":
            (folder.path / "x").unlink()
            (folder.path / "x").symlink_to(victim / "notes.txt")
        return opens(name, flags, *rest, **kwargs)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(OSError, match="symbolic links"):
        folder.open("x")


def test_a_directory_swapped_for_a_link_in_between_is_not_entered(
    folder: Folder, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(victim)
    (folder.path / "x").mkdir()
    opens = os.open

    def swapped(name, flags, *rest, **kwargs):
        if name == "x" and not (folder.path / "x").is_symlink():
            (folder.path / "x").rmdir()
            (folder.path / "x").symlink_to(victim)
        return opens(name, flags, *rest, **kwargs)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(NotADirectoryError):
        folder.folder("x")
    folder.remove("x", everything)
    assert folder.names() == []
    assert fingerprint(victim) == before


def test_a_temporary_directory_that_cannot_be_opened_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.at(tmp_path)

    def fail(self: Folder, name: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), name)

    monkeypatch.setattr(Folder, "folder", fail)
    with pytest.raises(OSError, match="Too many open files"):
        folder.make_temporary("x.")
    assert list(tmp_path.iterdir()) == []
