"""A recording directory from a stranger, opened by every command that looks into its cache."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline.store import CheckpointStore
from retrograde.timeline.storefiles import origin_of
from tests.command import Done, assert_error, retrograde
from tests.conftest import Record
from tests.damage import document, repeat_sums, rewrite
from tests.hostile import KINDS, fingerprint, make_victim, put
from tests.machine.bootdisk import CONSOLE, write_boot_disk

pytestmark = [pytest.mark.qemu, pytest.mark.gdb, pytest.mark.usefixtures("probe")]

CHECKPOINTS = ("machine.qcow2", "pages.bin", "tables.bin", "index.json")


def commands(folder: Path) -> Iterator[tuple[str, Done]]:
    """Run all that reads a cache."""
    picture = folder.parent / "x.svg"
    for words in (
        ("info", folder),
        ("debug", folder, "--", "-batch"),
        ("query", folder, "SELECT count(*) FROM calls"),
        ("info", folder, "--plot", picture),
        ("last-write", folder, "0x7c00:8"),
        ("index", folder),
        ("pack", folder, "-o", folder.parent / "x.tar.zst"),
    ):
        yield str(words[0]), retrograde(*words)
        picture.unlink(missing_ok=True)


def assert_harmless(folder: Path, *, refused: str = "") -> None:
    """Each command works, or says what is wrong in a sentence with `refused` in it."""
    for name, done in commands(folder):
        assert "Traceback" not in done.stderr, (name, done.stderr)
        if done.status == 2 and refused:
            assert_error(done, 2, refused)
        else:
            # That nothing wrote there is an answer, too.
            assert done.status == 0 or (name, done.status) == ("last-write", 1), (name, done.stderr)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return make_victim(tmp_path / "victim")


@pytest.fixture(scope="module")
def cached(recorded: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with checkpoints and an index; copy it."""
    folder = tmp_path_factory.mktemp("cached") / "a.retro"
    shutil.copytree(recorded("tiny").path, folder, symlinks=True)
    assert retrograde("index", folder).status == 0
    return folder


@pytest.fixture
def hostile(cached: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cached, tmp_path / "evil.retro", symlinks=True))


@pytest.mark.parametrize("digest", ["kept", "other"])
def test_no_name_in_an_index_is_a_path(digest: str, hostile: Path, victim: Path) -> None:
    before = fingerprint(victim)
    meta = hostile / "cache" / "index" / "meta.json"
    names = [str(victim), "../../../victim", "../../../victim/docs", "..", "."]
    rewrite(meta, versions=document(meta)["versions"] | dict.fromkeys(names, 1))
    if digest == "other":
        rewrite(meta, recording="0" * 64)
    own = fingerprint(hostile / "inputs")
    assert_harmless(hostile)
    assert fingerprint(victim) == before
    assert fingerprint(hostile / "inputs") == own


@pytest.mark.parametrize("place", ["index", "index/blocks", "index/calls", "checkpoints"])
def test_links_in_place_of_directories(place: str, hostile: Path, victim: Path) -> None:
    before = fingerprint(victim)
    shutil.rmtree(hostile / "cache" / place)
    (hostile / "cache" / place).symlink_to(victim)
    assert_harmless(hostile)
    assert fingerprint(victim) == before
    assert (hostile / "cache" / place).is_dir()


def test_a_link_in_place_of_the_cache(hostile: Path, victim: Path) -> None:
    before = fingerprint(victim)
    shutil.rmtree(hostile / "cache")
    (hostile / "cache").symlink_to(victim)
    assert_harmless(hostile, refused="It is a link")
    assert fingerprint(victim) == before


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_special_files_everywhere(kind: str, hostile: Path) -> None:
    """No command hangs on them, reads without end or fails with a traceback."""
    cache = hostile / "cache"
    interval = next((cache / "index" / "calls").iterdir()).name
    for name in ("checkpoints/index.json", "index/meta.json", f"index/calls/{interval}"):
        put(kind, cache / name)
    put(kind, cache / "bookmarks.json")
    refused = "did not make" if kind == "directory" else ""
    assert_harmless(hostile, refused=refused)


@pytest.mark.parametrize("name", CHECKPOINTS[:3])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_special_files_among_the_checkpoints(name: str, kind: str, hostile: Path) -> None:
    put(kind, hostile / "cache" / "checkpoints" / name)
    done = retrograde("debug", hostile, "--", "-batch")
    assert done.status == 0, done.stderr
    assert (hostile / "cache" / "checkpoints" / name).stat().st_size > 0


# Images that lead elsewhere.


def lead_to(kind: str, image: Path, target: Path) -> None:
    """Make `image` a qcow2 image that has its data in, or is based on, `target`."""
    options = {
        "data file": ("-o", f"data_file={target}"),
        "backing file": ("-b", str(target), "-F", "raw", "-u"),
    }[kind]
    made = image.with_name("new.qcow2")
    size = str(1440 << 10)
    words = ("qemu-img", "create", "-q", "-f", "qcow2", *options, str(made), size)
    content = target.read_bytes()
    subprocess.run(words, check=True)
    target.write_bytes(content)
    made.replace(image)


async def _keep_images(recording: Recording, qemu: Qemu) -> None:
    """Publish a store without checkpoints: QEMU may refuse to save while a disk is in use."""
    store = CheckpointStore.create(recording, origin_of(recording, qemu))
    async with await Replayer.start(recording, qemu) as replayer:
        store.use_reserve()
        replayer.copy_images(store.folder)
    store.publish().close()


@pytest.fixture(scope="module")
def with_disk(qemu: Qemu, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a guest that writes to its disk, with a store of images to go to."""
    place = tmp_path_factory.mktemp("disk")
    disk = write_boot_disk(place / "disk.img")
    folder = place / "a.retro"
    words = ("-nic", "none", "-drive", f"file={disk},format=raw,if=ide")
    recorded = retrograde("record", "-o", folder, "--", *words)
    assert recorded.status == 0, recorded.stderr
    recording = Recording.open(folder)
    assert recording.console_bytes() == CONSOLE
    asyncio.run(_keep_images(recording, qemu))
    assert (folder / "cache" / "checkpoints" / "disk0.qcow2").is_file()
    return folder


@pytest.mark.parametrize("name", ["machine.qcow2", "disk0.qcow2"])
@pytest.mark.parametrize("kind", ["data file", "backing file"])
def test_cached_images_that_lead_elsewhere(
    name: str, kind: str, with_disk: Path, tmp_path: Path, victim: Path
) -> None:
    folder = Path(shutil.copytree(with_disk, tmp_path / "evil.retro", symlinks=True))
    before = fingerprint(victim)
    checkpoints = folder / "cache" / "checkpoints"
    lead_to(kind, checkpoints / name, victim / "notes.txt")
    repeat_sums(checkpoints)
    said = "another file"
    for words in (("debug", folder, "--", "-batch"), ("last-write", folder, "0x7c00:8")):
        assert_error(retrograde(*words), 2, said, name)
    assert fingerprint(victim) == before


@pytest.mark.parametrize("kind", ["data file", "backing file"])
def test_the_recordings_own_image_that_leads_elsewhere(
    kind: str, copied: Callable[..., Path], victim: Path
) -> None:
    folder, before = copied(), fingerprint(victim)
    lead_to(kind, folder / "machine.qcow2", victim / "notes.txt")
    done = retrograde("replay", "--force", folder)
    assert_error(done, 2, "another file", "machine.qcow2")
    assert fingerprint(victim) == before


def test_an_input_that_leads_elsewhere(with_disk: Path, tmp_path: Path, victim: Path) -> None:
    folder = Path(shutil.copytree(with_disk, tmp_path / "evil.retro", symlinks=True))
    shutil.rmtree(folder / "cache")
    before = fingerprint(victim)
    (image,) = (folder / "inputs").iterdir()
    lead_to("data file", image, victim / "notes.txt")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (disk,) = (one for one in manifest["machine"]["options"] if one["kind"] == "disk")
    disk["layers"][0]["format"] = "qcow2"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert_error(retrograde("replay", "--force", folder), 2, "another file", image.name)
    assert fingerprint(victim) == before


def test_a_base_that_leads_elsewhere(with_disk: Path, tmp_path: Path, victim: Path) -> None:
    """A stranger's manifest has the digest of an image that names another file."""
    folder = Path(shutil.copytree(with_disk, tmp_path / "evil.retro", symlinks=True))
    shutil.rmtree(folder / "cache")
    (image,) = (folder / "inputs").iterdir()
    lead_to("data file", image, victim / "notes.txt")
    before = fingerprint(victim)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (disk,) = (one for one in manifest["machine"]["options"] if one["kind"] == "disk")
    disk["layers"][0]["format"] = "qcow2"
    content = image.read_bytes()
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["inputs"] = [{"name": image.name, **digest}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    base = image.rename(tmp_path / "base.qcow2")
    packed = tmp_path / "evil.tar.zst"
    assert retrograde("pack", folder, "--without-base", image.name, "-o", packed).status == 0
    unpacked = tmp_path / "unpacked.retro"
    done = retrograde("unpack", packed, "-o", unpacked, "--base", base)
    assert done.status == 0, done.stderr
    assert_error(retrograde("replay", unpacked), 2, "another file", image.name)
    assert fingerprint(victim) == before


# The recording's own files.


@pytest.mark.parametrize("kind", ["link", "pipe", "endless"])
@pytest.mark.parametrize("name", ["console.log", "replay.log", "machine.qcow2", "manifest.json"])
def test_own_files_that_are_not_plain(name: str, kind: str, copied: Callable[..., Path]) -> None:
    """Also where there is no digest: a recording that was never finished."""
    folder = copied()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest |= {"complete": False, "files": {}, "ending": "killed"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    put(kind, folder / name)
    packed = folder.parent / "x.tar.zst"
    for words in (("pack", folder, "-o", packed), ("info", folder), ("replay", "--force", folder)):
        assert_error(retrograde(*words), 2, folder.name)
    assert not packed.exists()


def test_inputs_that_are_elsewhere(copied: Callable[..., Path], victim: Path) -> None:
    folder = copied()
    (folder / "inputs").rename(victim / "inputs")
    (folder / "inputs").symlink_to(victim / "inputs")
    packed = folder.parent / "x.tar.zst"
    for words in (("pack", folder, "-o", packed), ("replay", "--force", folder)):
        assert_error(retrograde(*words), 2, "It is a link")
    assert not packed.exists()
    assert not os.path.lexists(f"{packed}.partial")
