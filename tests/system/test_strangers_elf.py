"""A stranger's ELF file in gdb: it brings scripts in every way there is, and none of them runs.

The user's ~/.gdbinit trusts all files, as it does where people debug kernels.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from retrograde.guests.builtin import builtin_guest
from tests.command import retrograde

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
    pytest.mark.skipif(shutil.which("objcopy") is None, reason="objcopy is not installed"),
    pytest.mark.usefixtures("probe"),
]

WAYS = ("inline", "beside", "local")
KERNEL = "kernel.elf"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a kernel, its scripts, a recording of it, and a home that trusts all."""
    place = tmp_path_factory.mktemp("stranger")
    guest = builtin_guest("tiny")
    at = guest.qemu_args.index("-kernel") + 1
    inline = place / "inline"
    # Kind 4: Python in the section itself (GDB manual, "dotdebug_gdb_scripts section").
    inline.write_bytes(b"\x04inline\n" + leaves(place, "inline").encode() + b"\0")
    flags = ("--set-section-flags", ".debug_gdb_scripts=readonly")
    subprocess.run(
        [
            *("objcopy", "--add-section", f".debug_gdb_scripts={inline}", *flags),
            *(guest.qemu_args[at], place / KERNEL),
        ],
        check=True,
    )
    arguments = [*guest.qemu_args[:at], str(place / KERNEL), *guest.qemu_args[at + 1 :]]
    done = retrograde("record", "-o", place / "a.retro", "--", *arguments)
    assert done.status == 0, done.stderr
    for folder in (place, place / "a.retro" / "inputs"):
        (folder / f"{KERNEL}-gdb.py").write_text(leaves(place, "beside"))
    (place / ".gdbinit").write_text(f"shell touch {place}/left-local\n")
    (place / "home").mkdir()
    (place / "home" / ".gdbinit").write_text(
        "set auto-load safe-path /\nset auto-load local-gdbinit on\n"
    )
    return place


def leaves(place: Path, way: str) -> str:
    """Return a script of gdb's Python that leaves a file."""
    return f"open({str(place / f'left-{way}')!r}, 'w').close()\n"


def debug(place: Path, *words: str | Path, gdb: tuple[str, ...] = ()):
    """Run a debug session and return what it said, and which of the scripts ran."""
    for way in WAYS:
        (place / f"left-{way}").unlink(missing_ok=True)
    done = retrograde(
        *(
            "debug",
            place / "a.retro",
            *words,
            "--",
            "-batch",
            "-ex",
            "retro when",
            "-ex",
            "info inferiors",
            *gdb,
        ),
        cwd=place,
        environment={"HOME": str(place / "home")},
    )
    assert done.status == 0, done.stderr
    assert b"at 0 of" in done.stdout, done
    return done, {way for way in WAYS if (place / f"left-{way}").exists()}


def test_the_scripts_of_the_users_own_file_run(place):
    """gdb as the user has set it; and what proves that the other tests can fail."""
    _, ran = debug(place, "--symbols", place / KERNEL)
    assert ran == set(WAYS)


def test_nothing_of_the_recordings_file_runs(place):
    done, ran = debug(place)
    assert ran == set()
    assert f"inputs/{KERNEL}" in done.stdout.decode()


def test_to_name_the_recordings_file_is_not_to_trust_it(place):
    (place / "link").symlink_to(place / "a.retro" / "inputs")
    done, ran = debug(place, "--symbols", place / "link" / KERNEL)
    assert ran == set()
    assert f"inputs/{KERNEL}" in done.stdout.decode()


def test_who_asks_for_the_scripts_gets_them(place):
    """What follows -- comes after our own."""
    _, ran = debug(place, gdb=("-iex", "set auto-load python-scripts on"))
    assert ran == {"inline", "beside"}
