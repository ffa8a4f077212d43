"""What our wheels bring, and that they claim no names that are not ours."""

from __future__ import annotations

import subprocess
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from retrograde.machine.probe.build import HEADERS, SCHEDULER_HEADERS, SCHEDULER_SOURCES, SOURCES
from retrograde.version import __version__
from tests.docs.pages import ROOT
from tests.packaging.conftest import Built, build

INFO = f"retrograde-{__version__}.dist-info"
DATA = f"retrograde-{__version__}.data/data/"


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def packages(wheel: Path, depth: int) -> set[str]:
    """Return the first `depth` parts of what is imported from `wheel`."""
    modules = (PurePosixPath(name) for name in names(wheel) if name.endswith(".py"))
    return {".".join(module.parts[:depth]).removesuffix(".__init__.py") for module in modules}


def test_each_claims_its_own_names_only(retrograde_built: Built, qemu_test_built: Built) -> None:
    assert packages(retrograde_built.wheel, 1) == {"retrograde"}
    assert packages(qemu_test_built.wheel, 1) == {"qemu_test", "qemu"}
    in_qemu = {name for name in packages(qemu_test_built.wheel, 2) if name.startswith("qemu.")}
    assert in_qemu == {"qemu.machine", "qemu.utils"}


def test_manual_page_and_completion(retrograde_built: Built) -> None:
    with zipfile.ZipFile(retrograde_built.wheel) as archive:
        shared = {
            name.removeprefix(DATA): archive.read(name)
            for name in archive.namelist()
            if name.startswith(DATA)
        }
    ours = [file for file in (ROOT / "share").rglob("*") if file.is_file()]
    assert shared == {str(file.relative_to(ROOT)): file.read_bytes() for file in ours}
    assert set(shared) == {
        "share/man/man1/retrograde.1",
        "share/man/man1/retrograde-qemu.1",
        "share/bash-completion/completions/retrograde",
        "share/zsh/site-functions/_retrograde",
        "share/fish/vendor_completions.d/retrograde.fish",
    }


def test_the_probe_comes_as_source(retrograde_built: Built) -> None:
    place = "retrograde/machine/probe_src/"
    found = {name.removeprefix(place) for name in names(retrograde_built.wheel) if place in name}
    scheduler = {*SCHEDULER_SOURCES, *SCHEDULER_HEADERS}
    assert found == {*SOURCES, *HEADERS, *scheduler, "Makefile"}


def test_licence_and_types(retrograde_built: Built, qemu_test_built: Built) -> None:
    assert {f"{INFO}/licenses/LICENSE", "retrograde/py.typed"} <= names(retrograde_built.wheel)
    assert "qemu_test/py.typed" in names(qemu_test_built.wheel)
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "qemu-test" / "LICENSE").read_bytes()


def test_they_belong_together(retrograde_built: Built, qemu_test_built: Built) -> None:
    """`qemu_test` takes what is no public API, so it wants the version it was tested with."""
    assert metadata(qemu_test_built.wheel)["Version"] == __version__
    wanted = metadata(qemu_test_built.wheel).get_all("Requires-Dist", [])
    assert f"retrograde=={__version__}" in wanted


def test_the_source_distributions_build_the_same(
    retrograde_built: Built, qemu_test_built: Built, tmp_path: Path
) -> None:
    for built in (retrograde_built, qemu_test_built):
        subprocess.run(["tar", "-xf", built.source, "-C", tmp_path], check=True)
        folder = tmp_path / built.source.name.removesuffix(".tar.gz")
        assert names(build(folder, tmp_path / f"{folder.name}-built").wheel) == names(built.wheel)
