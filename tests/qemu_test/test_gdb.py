"""gdb as tests drive it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_test import GDB
from qemu_test.machine import QEMUMachine

pytestmark = pytest.mark.gdb


@pytest.fixture
def gdb() -> Iterator[GDB]:
    program = os.environ.get("QEMU_TEST_GDB")
    if program is None:
        pytest.skip("gdb is not installed")
    made = GDB(program)
    yield made
    made.exit()


def test_the_timeout_can_be_caught_before_there_is_a_gdb() -> None:
    from pygdbmi.constants import GdbTimeoutError

    assert GDB.TimeoutError is GdbTimeoutError


def test_answers(gdb: GDB, capsys: pytest.CaptureFixture[str]) -> None:
    assert gdb.cli("print/x 255") is gdb
    assert gdb.get_console() == "$1 = 0xff\n"
    assert gdb.get_addr() == 255
    assert gdb.get_log() == "print/x 255\n"  # gdb repeats the command there
    assert gdb.get_payload(gdb.response, "console") == ["$1 = 0xff\n"]
    assert capsys.readouterr().out == "# $ print/x 255\n# $1 = 0xff\n"
    assert gdb.cli("print 1").get_addr() is None


def test_an_error_is_in_the_log_and_stays_with_its_command(gdb: GDB) -> None:
    assert "No symbol table" in gdb.cli("print nonesuch").get_log()
    assert gdb.get_console() == ""
    assert gdb.cli("echo hello\\n").get_console() == "hello\n"
    assert "No symbol table" not in gdb.get_log()


def test_architectures_are_listed_in_the_log(gdb: GDB) -> None:
    assert "i386:x86-64" in gdb.cli("set architecture").get_log()


def test_a_moving_command_is_done_when_it_stopped(gdb: GDB) -> None:
    gdb.cli(f"file {Path('/bin/sleep').resolve()}")
    gdb.cli("set args 0.3")
    # Nothing is printed for longer than a controller that waits for silence would wait.
    assert "exited normally" in gdb.cli("run").get_console()


@pytest.mark.qemu
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_machine_that_ends_while_it_moves(gdb: GDB, tmp_path: Path, end: signal.Signals) -> None:
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with QEMUMachine(program, base_temp_dir=str(tmp_path)) as vm:
        vm.add_args("-S", "-net", "none", "-gdb", f"unix:{tmp_path}/gdb,server=on,wait=off")
        vm.launch()
        gdb.cli(f"target remote {tmp_path}/gdb")
        pid = vm.get_pid()
        assert pid is not None
        # It ends once it runs, which it does because of the `continue` below.
        ending = threading.Thread(target=lambda: (vm.event_wait("RESUME"), os.kill(pid, end)))
        ending.start()
        gdb.cli("continue")
        ending.join()
        # Which of these depends on what gdb waits for at that moment.
        said = "Remote connection closed|Remote communication error|exited normally"
        assert re.search(said, gdb.get_console() + gdb.get_log())
        assert gdb.cli("print 1").get_console() == "$1 = 1\n"


def test_no_answer(gdb: GDB) -> None:
    gdb.cli("print 1")
    with pytest.raises(GDB.TimeoutError, match=r"said nothing .* 'shell sleep 5'"):
        gdb.cli("shell sleep 5", timeout=0.05)


def test_quiet(gdb: GDB, capsys: pytest.CaptureFixture[str]) -> None:
    gdb.echo = False
    gdb.cli("print 1")
    assert capsys.readouterr().out == ""


def test_a_gdb_that_ends(gdb: GDB) -> None:
    gdb.cli("quit")
    gdb.exit()
    gdb.exit()


def test_the_byte_order_of_the_machine_under_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GDB, "byte_order", "big")
    big = GDB(os.environ.get("QEMU_TEST_GDB", "gdb"), echo=False)
    try:
        assert "big endian" in big.cli("show endian").get_console()
        assert "little endian" in big.cli("set endian little").cli("show endian").get_console()
    finally:
        big.exit()


def test_no_such_gdb() -> None:
    with pytest.raises(FileNotFoundError, match="QEMU_TEST_GDB"):
        GDB("/no/such/gdb")
