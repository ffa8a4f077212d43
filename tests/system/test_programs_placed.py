"""Symbols of user programs where their processes have them, beside the kernel's; with real gdb."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retrograde.recording.bundle import Recording
from tests.command import assert_error, retrograde

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]

Linux = Callable[..., Recording]


def gdb(recording: Recording, at: str, *lines: str, symbols: tuple[Path, ...] = ()) -> str:
    options = [word for file in symbols for word in ("--symbols", file)]
    commands = [word for line in lines for word in ("-ex", line)]
    where = ("debug", recording.path, "--at", at, *options)
    done = retrograde(*where, "--", "-nx", "-batch", *commands)
    assert done.status == 0, done.stderr
    return done.stdout.decode() + done.stderr


def test_a_program_is_found_in_each_of_its_processes(linux: Linux, family: Path) -> None:
    """Each child has it elsewhere: a breakpoint stops in both, and frames have names."""
    recording = linux()
    _, second = (recording.console.position_of(at) for at, _ in recording.console.find(b"child"))
    said = gdb(
        recording,
        "console:child",
        *("break count_up if turns == 1000000", "continue", "bt", "p $pc"),
        *(f"retro seek {second}", "retro symbols", "continue", "p $pc"),
        *("reverse-continue", "p $pc"),
        symbols=(family,),
    )
    assert re.search(r"#1  0x[0-9a-f]+ in begin \(stack=[^)]*\) at .*family.c:", said)
    assert re.search(r"family is mapped at 0x7[0-9a-f]+000 here, and in other processes", said)
    first, other, back = re.findall(r"\$\d+ = .*\) (0x[0-9a-f]+) <count_up", said)
    assert first == back != other
    assert int(first, 16) % 4096 == int(other, 16) % 4096


def test_they_are_added_to_those_of_the_kernel(linux: Linux, family: Path, tmp_path: Path) -> None:
    """Files that are no kernel never take the place of what is loaded."""
    stand_in = tmp_path / "vmlinux"
    words = ("--add-symbol", "_stext=0xffffffff81000000", "--add-symbol", "sys_of_kernel=0x1")
    subprocess.run(["objcopy", *words, shutil.which("true"), stand_in], check=True)
    lines = ("info address sys_of_kernel", "info address begin")
    said = gdb(linux(), "console:child", *lines, symbols=(stand_in, family))
    assert '"sys_of_kernel" is at 0x' in said
    assert '"begin" is a function at address 0x7' in said


def test_the_kernel_names_itself(linux: Linux) -> None:
    """Nothing is named: what the kernel keeps in its memory is enough, wherever KASLR put it."""
    said = gdb(linux(), "console:child", "info symbol $pc", "info address do_exit", "break do_exit")
    assert " in section .text" in said
    assert re.search(r'"do_exit" is at 0xffffffff[0-9a-f]{8} in', said)
    assert re.search(r"Breakpoint 1 at 0xffffffff[0-9a-f]{8}", said)


def test_where_no_process_has_it_that_is_told(linux: Linux, family: Path) -> None:
    """Whether a checkpoint fell into a process depends on how fast the machine was."""
    said = gdb(linux(), "100_000_000", "info address begin", symbols=(family,))
    (address,) = re.findall(r'"begin" is a function at address (0x[0-9a-f]+)', said)
    if "family is not mapped here, and was not at any checkpoint" in said:
        assert int(address, 16) < 0x10000
    else:
        assert re.search(r"family is mapped at 0x7[0-9a-f, x]+, not in the process that is", said)
        assert int(address, 16) > 0x7F00_0000_0000
    assert "warning: family" not in said


def test_a_program_that_never_ran_is_doubted(linux: Linux, family: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    source = tmp_path / "other.c"
    source.write_text("int other(int n) { return n * 77; } int main(void) { return other(3); }")
    subprocess.run(["cc", "-fPIE", "-pie", "-Wl,--build-id", "-o", other, source], check=True)
    said = gdb(linux(), "console:child", "info address begin", symbols=(other, family))
    assert "other is not mapped here, and was not at any checkpoint" in said
    assert "warning: other is not of what ran here" in said
    assert "warning: family" not in said
    assert '"begin" is a function at address 0x7' in said


@pytest.mark.slow
def test_calls_of_a_program_have_names_in_each_process(linux: Linux, family: Path) -> None:
    """All processes are found, however short they were; the kernel's names stay."""
    path = linux().path
    assert retrograde("index", path).status == 0
    sql = (
        "SELECT name, count(*) AS calls, count(DISTINCT space) AS spaces, "
        "count(DISTINCT target) AS places FROM functions WHERE module = 'family' GROUP BY name"
    )
    found = {
        row["name"]: (row["calls"], row["spaces"], row["places"])
        for row in retrograde("query", "--json", path, "--symbols", family, sql).json()
    }
    assert found == {
        "begin": (3, 3, 3),
        "start_child": (2, 1, 1),
        "say": (3, 3, 3),
        "count_up": (4, 2, 2),
    }
    kernel = "SELECT count(*) AS count FROM functions WHERE name = 'do_exit'"
    assert retrograde("query", "--json", path, kernel).json()[0]["count"] >= 2
    where = "SELECT address FROM symbols WHERE name = 'counted' ORDER BY first DESC LIMIT 1"
    (row,) = retrograde("query", "--json", path, where).json()
    _, second = (linux().console.position_of(at) for at, _ in linux().console.find(b"child"))
    words = ("last-write", "--json", path, f"{row['address']:#x}:8")
    written = retrograde(*words, "--at", str(second + 3_000_000)).json()
    assert written["symbol"].startswith("count_up+0x")


def test_files_that_cannot_be_used(linux: Linux, family: Path, tmp_path: Path) -> None:
    stripped, foreign, text = (tmp_path / name for name in ("stripped", "foreign", "text"))
    subprocess.run(["strip", "-o", stripped, family], check=True)
    content = bytearray(family.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    foreign.write_bytes(content)
    text.write_text("0000000000001000 T begin\n")
    path = linux().path
    assert_error(retrograde("debug", path, "--symbols", foreign), 2, "AArch64", "x86_64")
    assert_error(retrograde("debug", path, "--symbols", text), 2, "is no ELF file")
    cut = tmp_path / "cut"
    cut.write_bytes(family.read_bytes()[:200])
    said = gdb(linux(), "console:child", "info address begin", symbols=(stripped, family))
    assert "stripped has no symbols: it was stripped" in said
    assert '"begin" is a function at address 0x7' in said
    said = gdb(linux(), "console:child", "info address begin", symbols=(cut, family))
    assert "cut is no ELF file, or a damaged one" in said
    assert '"begin" is a function at address 0x7' in said
