"""A Linux guest with processes of a program of ours, which only some tests need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests import cpio, reference_guest
from retrograde.recording.bundle import Recording
from tests.command import retrograde

_SOURCE = Path(__file__).parent / "linux" / "family.c"
_ANYWHERE = ("-fPIE", "-static-pie", "-nostdlib", "-fno-stack-protector")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program: it runs at any address, and in the guest at another in each process."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    program = tmp_path_factory.mktemp("family") / "family"
    words = ["cc", "-g", "-O1", *_ANYWHERE, "-Wl,--build-id", "-o", program, _SOURCE]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode or b"_start" not in program.read_bytes():
        pytest.skip(f"this compiler makes no static program for any address: {done.stderr}")
    return program


def initrd(program: Path, *others: tuple[str, Path]) -> bytes:
    """Return an archive with a program as /init, and other files by name."""
    files = (cpio.program(name, file.read_bytes()) for name, file in (("init", program), *others))
    devices = cpio.directory("dev"), cpio.character_device("dev/console", 5, 1)
    return cpio.archive([*devices, *files])


@pytest.fixture(scope="session")
def linux(
    family: Path, probe: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Recording]:
    """`linux(word="")`: Debian's kernel with that program; the word is for the program."""
    del probe
    try:
        kernel = reference_guest().files[0]
    except EnvironmentLacks as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("linux")
    (folder / "initrd").write_bytes(initrd(family))
    made: dict[str, Recording] = {}

    def get(word: str = "") -> Recording:
        if word not in made:
            output = folder / f"linux{word}.retro"
            machine = ("-M", "pc", "-m", "128", "-kernel", kernel, "-initrd", folder / "initrd")
            append = f"console=ttyS0 panic=-1 -- {word}"
            done = retrograde("record", "-o", output, "--", *machine, "-append", append)
            assert done.status == 0, done.stderr
            made[word] = Recording.open(output)
        return made[word]

    return get
