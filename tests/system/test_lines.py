"""Stepping by source lines, both ways: real gdb with DWARF of a guest written in C."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from retrograde.recording.bundle import Recording
from retrograde.verify.gdbmi import GdbMi
from tests.command import retrograde
from tests.system.gdbs import go, serving, where

pytestmark = [pytest.mark.qemu, pytest.mark.gdb, pytest.mark.usefixtures("probe")]

SOURCES = Path(__file__).parent / "lines"
BOOT = Path(__file__).parents[2] / "guests" / "x86_64"
CODE = (SOURCES / "lines.c").read_text().splitlines()


def line(comment):
    """Return the number of the line with that comment."""
    (number,) = [n for n, text in enumerate(CODE, 1) if f"/* {comment} */" in text]
    return number


@pytest.fixture(scope="module")
def gdb(tmp_path_factory):
    for program in ("cc", "as", "ld", "gdb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("lines")
    image = build(folder)
    retrograde("record", "-o", folder / "lines.retro", "--", "-m", "32", "-kernel", image)
    recording = Recording.open(folder / "lines.retro")
    assert b"LINES-DONE" in recording.console_path.read_bytes()
    with serving(recording, folder / "gdb"), GdbMi() as gdb:
        gdb.command(f"file {image}")
        gdb.connect(folder / "gdb")
        yield gdb


def build(folder):
    flags = ("-O0", "-g", "-ffreestanding", "-fno-pic", "-mgeneral-regs-only")
    quiet = ("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none")
    c_part, boot, image = folder / "lines.o", folder / "boot.o", folder / "lines.elf"
    subprocess.run(["cc", *flags, *quiet, "-c", SOURCES / "lines.c", "-o", c_part], check=True)
    subprocess.run(["as", "--64", "-I", BOOT, SOURCES / "lines.S", "-o", boot], check=True)
    link = ("-nostdlib", "-static", "-n", "-z", "noexecstack", "--no-warn-rwx-segments")
    script = ("-T", BOOT / "guest.ld")
    subprocess.run(["ld", *link, *script, boot, c_part, "-o", image], check=True)
    return image


@pytest.fixture
def at(gdb):
    """Go to the first time the line with a comment begins; returns gdb."""

    def begin(comment):
        gdb.command("delete")
        gdb.command("monitor start")
        gdb.command("maintenance flush register-cache")
        gdb.command(f"tbreak lines.c:{line(comment)}")
        go(gdb, "continue")
        assert here(gdb) == ("compute" if "triangle" not in comment else "triangle", line(comment))
        return gdb

    return begin


def here(gdb):
    """Return function and line as gdb sees them."""
    text = gdb.command("frame")
    function = re.search(r"#0 +(?:0x\w+ in )?(\w+) \(", text)
    number = re.search(r"lines\.c:(\d+)", text)
    return function[1], int(number[1])


def enter_backwards(gdb):
    """Step back into the function called last: some compilers begin a line anew after it."""
    for _ in range(2):
        if here(gdb)[0] == "compute":
            go(gdb, "reverse-step")
    assert here(gdb)[0] == "triangle"


def test_next_and_reverse_next_pass_over_calls(at):
    gdb = at("one")
    began = [where(gdb)]
    for comment in ("two", "three"):
        go(gdb, "next")
        assert here(gdb) == ("compute", line(comment))
        began.append(where(gdb))
    assert gdb.command("print total").split()[-1] == "46"
    lines = []
    while where(gdb) > began[0]:
        go(gdb, "reverse-next")
        lines.append(here(gdb))
    # Some compilers begin a line anew after a call in it.
    assert list(dict.fromkeys(lines)) == [("compute", line("two")), ("compute", line("one"))]
    assert where(gdb) == began[0]
    assert gdb.command("print total").split()[-1] == "0"


def test_reverse_step_enters_a_function_by_its_end(at):
    gdb = at("three")
    enter_backwards(gdb)
    assert here(gdb)[1] >= line("triangle last")
    go(gdb, "reverse-finish")
    assert here(gdb) == ("compute", line("two"))


def test_finish_and_reverse_finish_leave_a_function(at):
    gdb = at("triangle first")
    inside = where(gdb)
    assert "= 45" in go(gdb, "finish")
    assert here(gdb) == ("compute", line("two"))
    assert where(gdb) > inside
    enter_backwards(gdb)
    go(gdb, "reverse-finish")
    assert here(gdb) == ("compute", line("two"))
    assert where(gdb) < inside


def test_a_line_over_hundreds_of_instructions(at):
    gdb = at("four")
    go(gdb, "reverse-next")
    after = where(gdb)
    assert here(gdb)[0] == "compute"
    gdb.command(f"tbreak {line('loop')}")
    go(gdb, "reverse-continue")
    assert here(gdb) == ("compute", line("loop"))
    assert where(gdb) <= after
    go(gdb, "next")
    assert where(gdb) > after - 1000
