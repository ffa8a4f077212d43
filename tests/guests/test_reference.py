"""The reference guest's cache and contents; the packages themselves only in the slow test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import apt, reference, reference_guest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "retrograde" / "guests"


def _fake_fetch(calls: list[str]) -> object:
    def fetch(package: str, depends: str | None, into: Path) -> str:
        calls.append(package)
        name = "boot/vmlinuz-6.1.0-56" if depends else "bin/busybox"
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(package.encode())
        return f"{package} 1.0"

    return fetch


def test_first_use_fetches_and_second_does_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(apt, "fetch", _fake_fetch(calls))
    first = reference_guest()
    assert len(calls) == 2
    assert reference_guest() == first
    assert len(calls) == 2
    kernel, initrd = first.files
    assert kernel.read_bytes() == b"linux-image-cloud-amd64:amd64"
    assert initrd.read_bytes() == reference.initrd(b"busybox-static:amd64")
    assert all(str(path) in first.qemu_args for path in first.files)
    assert "busybox-static:amd64 1.0" in first.description
    assert [path.name for path in cache.iterdir()] == [kernel.parent.name]


def test_a_failed_fetch_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(package: str, depends: str | None, into: Path) -> str:
        (into / "half").write_bytes(b"")
        raise EnvironmentLacks("no network")

    monkeypatch.setattr(apt, "fetch", fetch)
    with pytest.raises(EnvironmentLacks):
        reference_guest()
    assert list(cache.iterdir()) == []


def test_losing_the_race_takes_the_winners_files(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    inner = _fake_fetch(calls)

    def fetch(package: str, depends: str | None, into: Path) -> str:
        if not calls:  # someone else finishes while we are still at it
            monkeypatch.setattr(apt, "fetch", inner)
            reference_guest()
        return inner(package, depends, into)  # type: ignore[operator,no-any-return]

    monkeypatch.setattr(apt, "fetch", fetch)
    guest = reference_guest()
    assert len(calls) == 4
    assert guest.files[0].is_file()
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentLacks, match="cannot be stored"):
        reference_guest()


def test_initrd_is_the_same_every_time() -> None:
    assert reference.initrd(b"x" * 5) == reference.initrd(b"x" * 5)
    assert b"INIT-START" in reference.initrd(b"")


@pytest.mark.slow
@pytest.mark.qemu
def test_the_real_one_boots_and_powers_off(tmp_path: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs Debian's apt and QEMU")
    guest = reference_guest()
    console = tmp_path / "console"
    subprocess.run(
        [
            *("qemu-system-x86_64", *guest.qemu_args, "-icount", "shift=7"),
            *("-display", "none", "-net", "none", "-monitor", "none", "-no-reboot"),
            *("-serial", f"file:{console}"),
        ],
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=240,
    )
    text = console.read_text()
    work = text[text.index(guest.start) : text.index(guest.done)]
    assert "Linux version 6" in work
    assert "reboot: Power down" in text
