"""Fetching packages, against stand-ins for apt that play a Debian in every condition."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import apt

_MADISON = """\
 meta:amd64 | 6.12.95-1~bpo12+1 | http://deb.debian.org/debian bookworm-backports/main Packages
 meta:amd64 |  6.1.192-2 | http://deb.debian.org/debian-security bookworm-security/main Packages
 meta:amd64 |  6.1.176-1 | http://deb.debian.org/debian bookworm/main Packages
 meta:amd64 |  6.1.176-1 | http://deb.debian.org/debian bookworm/main Sources
"""
_SHOW = "Package: meta\nDepends: libc6 (>= 2), image-6.1.0-56-cloud (= 6.1.192-2)\n"


class FakeApt:
    """Programs named apt-get, apt-cache and dpkg-deb that say what they are told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir()
        self.calls = self.state / "calls"
        self.calls.touch()
        for name, text in (("madison", _MADISON), ("show", _SHOW)):
            (self.state / name).write_text(text)
        self._program("apt-cache", 'cat "$S/$1"')
        self._program(
            "apt-get",
            "for last; do :; done\n"
            'if [ "$last" = update ]; then\n'
            '  [ -e "$S/offline" ] && { echo "E: no network" >&2; exit 100; }\n'
            '  rm -f "$S/stale"; [ -e "$S/later" ] && mv "$S/later" "$S/madison"; exit 0\n'
            "fi\n"
            '[ -e "$S/stale" ] && { echo "E: 404 Not Found" >&2; exit 100; }\n'
            'echo "$last" > "fetched.deb"',
        )
        self._program("dpkg-deb", 'cp "$2" "$3/unpacked"')

    def _program(self, name: str, body: str) -> None:
        path = self.directory / name
        path.write_text(f'#!/bin/sh\nS={self.state}\necho "{name} $*" >> "$S/calls"\n{body}\n')
        path.chmod(0o755)

    def say(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.state / name).write_text(text)

    @property
    def updates(self) -> int:
        return sum(line.endswith(" update") for line in self.calls.read_text().splitlines())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApt:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return FakeApt(programs)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


def _as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_meta_package_leads_to_the_release_kernel_not_the_backport(
    fake: FakeApt, into: Path
) -> None:
    named = apt.fetch("meta:amd64", r"image-\S+-cloud", into)
    assert named == "image-6.1.0-56-cloud:amd64 6.1.192-2"
    assert (into / "unpacked").read_text() == "image-6.1.0-56-cloud:amd64=6.1.192-2\n"
    assert not list(into.glob("*.deb"))
    assert "apt-cache show meta:amd64=6.1.192-2" in fake.calls.read_text()
    assert fake.updates == 0


def test_only_a_backport_on_offer_is_taken() -> None:
    assert apt.preferred(["2-1~bpo12+1", "1-1~bpo12+1"]) == "2-1~bpo12+1"


def test_empty_lists_are_refreshed_by_root(
    fake: FakeApt, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_user(monkeypatch, 0)
    fake.say(madison="", later=" tool | 1.0 | http://x bookworm/main amd64 Packages\n")
    assert apt.fetch("tool", None, into) == "tool 1.0"
    assert fake.updates == 1


def test_empty_lists_tell_a_user_the_command(
    fake: FakeApt, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_user(monkeypatch, 1000)
    fake.say(madison="")
    with pytest.raises(EnvironmentLacks) as lacks:
        apt.fetch("tool", None, into)
    assert "sudo apt-get update" in lacks.value.remedy
    assert fake.updates == 0


def test_a_package_no_list_names(
    fake: FakeApt, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_user(monkeypatch, 0)
    fake.say(madison="")
    with pytest.raises(EnvironmentLacks, match="do not name tool"):
        apt.fetch("tool", None, into)


def test_stale_lists_are_refreshed_by_root_and_tried_again(
    fake: FakeApt, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_user(monkeypatch, 0)
    fake.say(stale="")
    assert apt.fetch("meta:amd64", None, into) == "meta:amd64 6.1.192-2"
    assert fake.updates == 1


@pytest.mark.parametrize(("uid", "evidence"), [(0, "no network"), (1000, "404")])
def test_no_network(
    fake: FakeApt, into: Path, monkeypatch: pytest.MonkeyPatch, uid: int, evidence: str
) -> None:
    _as_user(monkeypatch, uid)
    fake.say(stale="", offline="")
    with pytest.raises(EnvironmentLacks) as lacks:
        apt.fetch("meta:amd64", None, into)
    assert evidence in lacks.value.detail


def test_not_a_debian(into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="no apt-get"):
        apt.fetch("tool", None, into)


def test_a_meta_package_that_changed_its_shape(fake: FakeApt, into: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="depends on no package like vmlinux"):
        apt.fetch("meta:amd64", "vmlinux", into)
