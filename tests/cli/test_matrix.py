"""`retrograde matrix`, where there is nothing to try and where there is."""

from __future__ import annotations

import pytest

from tests.command import assert_error, retrograde


def test_without_any_qemu_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = retrograde("matrix")
    assert_error(done, 3, "No qemu-system-* is on PATH", "apt-get install")


def test_what_is_not_a_qemu_is_said_to_be_none(tmp_path, monkeypatch):
    program = tmp_path / "qemu-system-m68k"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = tmp_path / "report.html"
    done = retrograde("matrix", "--targets", "m68k,vax", "--json", "--html", report)
    document = done.json()
    assert document["reversible"] == 0
    sentences = {cell["target"]: cell["sentence"] for cell in document["cells"]}
    assert "does not answer --version" in sentences["m68k"]
    assert "not installed" in sentences["vax"]
    assert {cell["verdict"] for cell in document["cells"]} == {"absent"}
    assert "qemu-system-vax is not installed" in report.read_text()


@pytest.mark.parametrize("asked", [":q35", "x86_64:"])
def test_half_a_target_is_refused(asked):
    assert_error(retrograde("matrix", "--targets", asked), 2, "is no target")
