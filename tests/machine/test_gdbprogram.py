"""Choosing a gdb among those installed, which here are scripts with a list of what they know."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.isa.isa import isa_for
from retrograde.machine.gdbprogram import NOT_ITS_SCRIPTS, gdb_for

HOST, FOREIGN = isa_for("x86_64"), isa_for("riscv64")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """`installed(name, isa...)`: install a gdb that knows these; at first there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    shell = shutil.which("sh", path=os.defpath)

    def install(name, *isas):
        known = "|".join(f"'set architecture {isa.gdb_architecture}'" for isa in isas)
        path = tmp_path / name
        path.write_text(
            f"#!{shell}\n"
            'for word; do case "$word" in\n'
            f'{known}) name="${{word##* }}";;\n'
            "esac; done\n"
            'echo "The target architecture is set to \\"${name:-auto}\\"."\n'
        )
        path.chmod(0o755)
        return str(path)

    return install


def test_the_first_that_knows_the_architecture(installed):
    own = installed("gdb", HOST)
    every = installed("gdb-multiarch", HOST, FOREIGN)
    assert gdb_for(HOST) == own
    assert gdb_for(FOREIGN) == every
    assert gdb_for(HOST, "gdb-multiarch") == every


def test_gdb_multiarch_alone_will_do(installed):
    every = installed("gdb-multiarch", HOST, FOREIGN)
    assert gdb_for(HOST) == every


def test_none_that_knows_it(installed):
    installed("gdb", HOST)
    with pytest.raises(EnvironmentLacks, match=re.escape("riscv:rv64")) as told:
        gdb_for(FOREIGN)
    assert "gdb-multiarch" in told.value.remedy


def test_one_that_was_named_is_not_replaced(installed):
    own = installed("gdb", HOST)
    every = installed("gdb-multiarch", HOST, FOREIGN)
    with pytest.raises(EnvironmentLacks, match=re.escape(own)) as told:
        gdb_for(FOREIGN, "gdb")
    assert every in told.value.remedy


@pytest.mark.parametrize("name", [None, "gdb-of-mine"])
def test_none_at_all(installed, name):
    with pytest.raises(EnvironmentLacks, match="not installed"):
        gdb_for(HOST, name)


def test_what_cannot_be_started_knows_nothing(installed):
    Path(installed("gdb", HOST)).write_text("no program")
    with pytest.raises(EnvironmentLacks, match="cannot debug"):
        gdb_for(HOST)


@pytest.mark.gdb
@pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed")
@pytest.mark.parametrize(
    "target", ["x86_64", "aarch64", "riscv64", "ppc64", "mips", "m68k", "sparc"]
)
def test_the_real_one_knows_all(target):
    assert gdb_for(isa_for(target))
    assert gdb_for(isa_for(target), "gdb-multiarch").endswith("gdb-multiarch")


@pytest.mark.gdb
@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_run_does_not_run_a_strangers_file():
    """Where nothing else gives `run` a meaning: without the commands for recordings."""
    words = ["-nx", "-q", "-batch", *NOT_ITS_SCRIPTS, "/bin/true", "-ex", "run"]
    done = subprocess.run(["gdb", *words], capture_output=True, text=True, check=False)
    assert "Don't know how to run" in done.stderr
    assert "exited normally" not in done.stdout
