"""16-, 32- and 64-bit code of one x86_64, with real gdb: right numbers, or a word before them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from retrograde.guests.builtin import builtin_guest
from tests.command import retrograde
from tests.conftest import Record, find_qemu

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.usefixtures("probe"),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]

REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "cs", "gs")
LOOK = (
    f"info registers {' '.join(REGISTERS)} st0 fctrl",
    "print/x $eflags",
    "print/x $mxcsr",
    "print $xmm1.v4_int32",
    "backtrace 3",
    "x/4i $pc",
    "x/2wx $sp",
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A 32-bit program, recorded by the QEMU for it and by the one for 64 bits."""
    guest, made = builtin_guest("tiny", "i386"), {}
    for target in ("x86_64", "i386"):
        find_qemu(target)
        made[target] = tmp_path_factory.mktemp("narrow") / f"{target}.retro"
        words = ("record", "-o", made[target], "--target", target, "--")
        assert retrograde(*words, *guest.qemu_args).status == 0
    return made


def gdb(recording: Path, *lines: str, options: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what gdb says to each of `lines`."""
    words = [word for line in lines for word in ("-ex", f"echo >>>{line}\\n", "-ex", line)]
    done = retrograde("debug", recording, *options, "--", "-nx", "-batch", *words)
    said = done.stdout.decode().split(">>>")[1:]
    answers = {part.partition("\n")[0]: part.partition("\n")[2] for part in said}
    return answers | {"stderr": done.stderr}  # what the server says among it


@pytest.mark.parametrize("has_symbols", [False, True])
def test_a_32_bit_program_on_a_64_bit_machine(
    narrow: dict[str, Path], *, has_symbols: bool
) -> None:
    """It is seen as on an i386, whether gdb is given the program or gets the recording's."""
    program = str(builtin_guest("tiny", "i386").files[0])
    options = ("--symbols", program) if has_symbols else ()
    lines = ("break putc", "continue", *LOOK, "ignore 1 5", "stepi", "info symbol $pc")
    seen = [gdb(path, *lines, options=options) for path in narrow.values()]
    assert "putc" in seen[0]["continue"]
    assert re.search(r"eip +0x", seen[0][LOOK[0]])
    for line in (*LOOK, "stepi", "info symbol $pc"):
        assert seen[0][line] == seen[1][line], line


@pytest.mark.parametrize("target", ["x86_64", "i386"])
def test_from_the_reset_vector_on_in_each_mode(recorded: Record, target: str) -> None:
    lines = ("retro mode 16", "x/i $pc", "p/x $ip", "stepi", "break *$pc", "x/i $pc ", "stepi ")
    later = ("reverse-continue", "delete", f"retro mode {(target == 'x86_64' and 64) or 32}")
    after = ("break putc", "continue", "x/i $pc  ")
    said = gdb(recorded("tiny", target).path, *lines, *later, *after)
    assert re.search(r"0xfffffff0:\s+ljmp +\$0xf000,\$0xe05b", said["x/i $pc"])
    assert said["p/x $ip"].endswith("0xfff0\n")
    assert "0x000fe05b" in said["stepi"]
    assert "%cs:" in said["x/i $pc "]
    assert "0x000fe05b" in said["reverse-continue"]
    assert "<putc>:" in said["x/i $pc  "]


def test_code_of_another_mode_is_told(narrow: dict[str, Path]) -> None:
    said = gdb(narrow["x86_64"], "retro mode 64", "break *0x100175", "continue")
    assert "runs 32-bit code here, and the debugger takes it for 64-bit code" in said["stderr"]
    assert "`retro mode 32`" in said["stderr"]


def test_a_mode_there_is_not_is_refused(recorded: Record) -> None:
    said = gdb(recorded("tiny", "i386").path, "retro mode 64", "retro mode")
    assert "'64' is no mode of this machine" in said["retro mode 64"] + said["stderr"]
    assert "runs 16-bit code here, and is shown as one of 32 bits" in said["retro mode"]
