"""`retrograde debug`: gdb comes up attached, and takes everything down with it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

from retrograde.cli.debug import _is_part_of
from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.support import require_probe
from tests.command import RETROGRADE, SECONDS, assert_error, retrograde, start
from tests.recording.handmade import make_recording

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.gdb,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]


@pytest.mark.usefixtures("probe")
def test_gdb_is_there_with_symbols_position_and_commands(recorded):
    done = retrograde(
        *("debug", recorded().path, "--at", "50%", "--", "-nx", "-batch"),
        *("-ex", "info symbol $pc", "-ex", "retro when", "-ex", "reverse-stepi"),
        *("-ex", "retro when", "-ex", "show remotetimeout"),
    )
    assert done.status == 0, done.stderr
    assert b"to respond is 3600." in done.stdout
    end = recorded().end
    assert f"at {end // 2:_} of {end:_}".encode() in done.stdout
    assert f"at {end // 2 - 1:_} of {end:_}".encode() in done.stdout
    assert b" in section .text" in done.stdout


@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize("interface", [[], ["-tui"]], ids=["plain", "tui"])
def test_on_a_terminal_gdb_has_it_to_itself(recorded, session, interface, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["debug", recorded().path, "--at", "17_000_000", "--", "-nx", *interface]
    session.start(*words, program=RETROGRADE, stderr=subprocess.STDOUT)
    # The progress bar hides the cursor while it lasts.
    began = session.read_until(b"Reading symbols")
    assert began.count(b"\x1b[?25l") <= began.count(b"\x1b[?25h")
    session.read_until(b"(gdb 17_000_000) ")
    session.type(b"retro seek 17_000_100\r")
    session.read_until(b"(gdb 17_000_100) ")
    session.type(b"quit\r")
    session.read_until(b"(y or n) ")
    session.type(b"y\r")
    status, _ = session.end()
    assert status == 0


def test_without_the_probe_gdb_goes_back_with_qemus_own_stub(recorded, qemu):
    with contextlib.suppress(EnvironmentLacks):
        require_probe(qemu.path)
        pytest.skip("this QEMU carries the probe")
    done = retrograde(
        *("debug", recorded().path, "--at", "50%", "--", "-nx", "-batch"),
        *("-ex", "p/x $pc", "-ex", "stepi", "-ex", "reverse-stepi", "-ex", "p/x $pc"),
    )
    assert done.status == 0, done.stderr
    assert "QEMU's own stub" in done.stderr
    first, last = re.findall(rb"\$\d+ = (0x\w+)", done.stdout)
    assert first == last


def test_the_exit_status_is_gdbs(recorded):
    assert retrograde("debug", recorded().path, "--", "-nx", "-batch", "-ex", "quit 7").status == 7


@pytest.mark.parametrize(
    ("name", "is_part"),
    [
        ("a.retro/inputs/kernel", True),
        ("linked/kernel", True),
        ("a.retro/../a.retro/inputs/kernel", True),
        ("elsewhere", True),
        ("kernel", False),
        ("a.retro-kernel", False),
        ("a.retro/inputs/../../kernel", False),
    ],
)
def test_whose_file_is_named(tmp_path, name, is_part):
    """A link out of the recording is the recording's, and so is a link into it."""
    recording = make_recording(tmp_path / "a.retro")
    (tmp_path / "linked").symlink_to("a.retro/inputs")
    (tmp_path / "elsewhere").symlink_to("a.retro/inputs/kernel")
    for own in ("kernel", "a.retro-kernel"):
        (tmp_path / own).touch()
    assert _is_part_of(tmp_path / name, recording) == is_part


def test_what_cannot_be_done_is_said_before_gdb_starts(recorded):
    path = recorded().path
    assert_error(retrograde("debug", path, "--at", "900%"), 2, "outside")
    assert_error(retrograde("debug", path, "--gdb", "no-such-gdb"), 3, "apt-get install gdb")


@pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed")
def test_a_foreign_guest_gets_a_gdb_that_knows_it(recorded):
    path = recorded("tiny", "riscv64").path
    done = retrograde("debug", path, "--", "-nx", "-batch", "-ex", 'p $_gdb_setting_str("arch")')
    assert done.status == 0, done.stderr
    assert b"riscv:rv64" in done.stdout
    assert "Undefined item" not in done.stderr
    if b"riscv:rv64" not in show_architecture("gdb"):
        done = retrograde("debug", path, "--gdb", "gdb")
        assert_error(done, 3, "riscv:rv64", "Leave --gdb out")


@pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="gdb-multiarch is not installed")
def test_verify_says_so_too(recorded):
    if b"aarch64" not in show_architecture("gdb"):
        done = retrograde("verify", recorded("tiny", "aarch64").path, "--gdb", "gdb")
        assert_error(done, 3, "aarch64", "Leave --gdb out")


def show_architecture(gdb):
    ask = ("-ex", "set architecture riscv:rv64", "-ex", "show architecture")
    return subprocess.run([gdb, "-nx", "-batch", *ask], stdout=subprocess.PIPE, check=False).stdout


@pytest.mark.usefixtures("probe")
def test_ctrl_c_is_for_gdb_alone(recorded):
    """The group gets SIGINT, as from a terminal; gdb survives it, and so do we."""
    with start("debug", recorded().path, "--", "-nx", "-q", stdin=-1, stdout=-1) as debug:
        try:
            wait_for_prompt(debug)
            os.killpg(debug.pid, signal.SIGINT)
            debug.stdin.write(b"retro when\nquit\n")
            debug.stdin.close()
            rest = debug.stdout.read()
            assert b"at 0 of" in rest, rest
            assert debug.wait(SECONDS) == 0
        finally:
            debug.kill()


@pytest.mark.usefixtures("probe")
def test_when_the_user_is_gone_so_is_gdb(recorded):
    with start("debug", recorded().path, "--", "-nx", "-q", stdin=-1, stdout=-1) as debug:
        try:
            wait_for_prompt(debug)
            debug.send_signal(signal.SIGTERM)
            debug.stdout.read()  # ends when gdb has
            assert debug.wait(SECONDS) != 0
        finally:
            debug.kill()


def wait_for_prompt(debug):
    """Wait until gdb has printed its prompt, which shows the position, and reads."""
    seen = b""
    while not seen.endswith(b"(gdb 0) "):
        byte = debug.stdout.read(1)
        assert byte, seen
        seen += byte
