"""`retrograde-qemu` in the place of QEMU, with command lines as people have them."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import pytest

from retrograde.guests.builtin import builtin_guest
from retrograde.recording.bundle import Recording
from retrograde.verify.randomly import compare_randomly
from tests.command import Done, retrograde
from tests.conftest import find_qemu
from tests.machine.cortexm import write_cortex_m
from tests.system import programs
from tests.system.commandlines import LINES, SAMPLE

pytestmark = pytest.mark.qemu

DROPIN = (sys.executable, "-c", "from retrograde.cli.dropin import main; main()")

# Prints "line\n" to ports 0x3f8 and 0x402, then powers off: 0x2000 to port 0x604, where SeaBIOS
# puts the control register of ACPI.
_BOOT = bytes.fromhex("be1e7cac08c0740abaf803eeba0204eeebf190ba0406b80020effaf4ebfd")
_TEXT = b"line\n\0"

# For Cortex-M: top of the stack, reset; SYS_WRITE0 of what comes behind, SYS_EXIT.
_SEMIHOSTING = bytes.fromhex(
    "00100020 09000000 0420 0349 abbe 1820 0249 abbe fee7 00bf 20000000 26000200"
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The files that the lines name, but for {kernel}."""
    boot, disk, folder = (tmp_path / name for name in ("boot.img", "disk.img", "folder"))
    sector = (_BOOT + _TEXT).ljust(510, b"\0") + b"\x55\xaa"
    boot.write_bytes(sector.ljust(1440 << 10, b"\0"))
    disk.write_bytes(bytes(1 << 20))
    folder.mkdir()
    (folder / "startup.nsh").write_text("echo hello\n")
    programs.hello(tmp_path, b"line\n")
    made = {"boot": boot, "disk": disk, "folder": folder, "bios": tmp_path / "hello.bin"}
    made["semihosting"] = tmp_path / "semihosting.bin"
    made["semihosting"].write_bytes(_SEMIHOSTING + _TEXT)
    for name, board in (("lm3s", "lm3s6965evb"), ("stm32", "stm32vldiscovery")):
        made[name] = tmp_path / f"{name}.bin"
        write_cortex_m(made[name], board)
    return made


def run(name: str, files: dict[str, Path]) -> tuple[Recording, Done]:
    target, line = LINES[name]
    find_qemu(target)
    board = "microvm" if name == "microvm" else ""
    kernel = builtin_guest("tiny", target, board).files[0]
    words = shlex.split(line.format(kernel=kernel, **files))
    folder = files["disk"].parent
    output = folder / "recordings"
    given = ["--retrograde-target", target, "--retrograde-output", output, *words]
    done = retrograde(*given, program=DROPIN, cwd=folder)
    assert done.status == 0, done.stderr
    (path,) = output.iterdir()
    return Recording.open(path), done


def check_replay(recording: Recording) -> None:
    shown = b"".join(port.data for port in recording.ports.values())
    assert b"TINY-DONE" in shown or shown.endswith((b"line\n", b"a" * 32))
    replayed = retrograde("replay", recording.path)
    assert replayed.status == 0, replayed.stderr
    assert replayed.stdout == recording.console.data


def test_there_are_enough_of_them() -> None:
    assert len(LINES) >= 40


@pytest.mark.parametrize("name", SAMPLE)
def test_a_line_is_recorded_and_replayed(name: str, files: dict[str, Path]) -> None:
    recording, _ = run(name, files)
    check_replay(recording)


@pytest.mark.slow
@pytest.mark.gdb
@pytest.mark.parametrize("name", LINES)
def test_a_line_is_recorded_replayed_and_walked_back(name: str, files: dict[str, Path]) -> None:
    recording, _ = run(name, files)
    check_replay(recording)
    if LINES[name][0].startswith("mips"):
        # QEMU's own stub, with which verify steps, passes a branch and its delay slot in one
        # step forward, and stops between them on the way back.
        result = asyncio.run(compare_randomly(recording, find_qemu("mipsel"), count=5, seed=1))
        assert result.operations == 5
        return
    verified = retrograde("verify", recording.path)
    assert verified.status == 0, verified.stderr
