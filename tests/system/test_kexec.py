"""A Linux that starts another one in its place: two kernels in a recording, each elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import reference_guest
from retrograde.recording.bundle import Recording
from tests.command import retrograde
from tests.system.conftest import initrd

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]

_SOURCE = Path(__file__).parent / "linux" / "kexec.c"
LINKED = 0xFFFF_FFFF_8100_0000
OFFSET = re.compile(rb"Kernel Offset: (0x[0-9a-f]+) from 0xffffffff81000000")


@pytest.fixture(scope="module")
def twice(probe: None, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    del probe
    try:
        kernel = reference_guest().files[0]
    except EnvironmentLacks as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("twice")
    program = folder / "kexec"
    words = ["cc", "-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o", program, _SOURCE]
    if shutil.which("cc") is None or subprocess.run(words).returncode:
        pytest.skip("there is no C compiler that makes static programs")
    (folder / "initrd").write_bytes(initrd(program, ("kernel", kernel)))
    machine = ("-M", "pc", "-m", "256", "-no-reboot", "-kernel", kernel)
    append = ("-initrd", folder / "initrd", "-append", "console=ttyS0 panic=-1")
    done = retrograde("record", "-o", folder / "twice.retro", "--", *machine, *append)
    assert done.status == 0, done.stderr
    return Recording.open(folder / "twice.retro")


def gdb(recording: Recording, at: str) -> str:
    commands = ("-ex", "monitor kernel", "-ex", "info symbol $pc", "-ex", "info address do_exit")
    done = retrograde("debug", recording.path, "--at", at, "--", "-nx", "-batch", *commands)
    assert done.status == 0, done.stderr
    return done.stdout.decode() + done.stderr


def test_each_has_its_base_and_its_names(twice: Recording) -> None:
    """The second one says itself, as it panics, where it is."""
    (offset,) = OFFSET.findall(twice.console.data)
    first, second = gdb(twice, 'console:"another kernel"'), gdb(twice, "console:Unable to mount")
    bases = [int(re.findall(r"^_stext (0x\w+)", said, re.M)[0], 16) for said in (first, second)]
    assert bases[1] == LINKED + int(offset, 16) != bases[0]
    for said, base in zip((first, second), bases, strict=True):
        assert " in section .text" in said
        (address,) = re.findall(r'"do_exit" is at (0x\w+) in', said)
        assert 0 < int(address, 16) - base < 32 << 20
