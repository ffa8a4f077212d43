"""The guest's console on a terminal: what is typed is recorded, the terminal is put back."""

from __future__ import annotations

import os
import signal
import termios
from pathlib import Path

import pytest

from retrograde.cli.terminal import EscapeFilter
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests.cli.session import Session
from tests.cli.test_dropin import DROPIN
from tests.command import RETROGRADE, retrograde
from tests.system import programs


def local_flags(session: Session) -> int:
    flags = termios.tcgetattr(session.terminal)[3]
    assert isinstance(flags, int)
    return flags


@pytest.mark.qemu
def test_typed_input_is_recorded(session: Session, tmp_path: Path, qemu: Qemu) -> None:
    output = tmp_path / "x.retro"
    session.start("record", "-i", "-o", output, "--", *programs.echo(tmp_path), program=RETROGRADE)
    session.read_until(b">")
    assert not local_flags(session) & (termios.ECHO | termios.ICANON | termios.ISIG)
    session.type(b"hi\x03")  # Ctrl-C is the guest's
    assert session.read_until(b"\x03") == b"hi\x03"
    session.type(b"\x04")
    session.read_until(b"\x04")
    status, stderr = session.end()
    assert status == 0, stderr
    assert "Ctrl-A x ends the recording" in stderr
    assert termios.tcgetattr(session.terminal) == session.before
    recording = Recording.open(output)
    assert recording.complete
    assert recording.console_path.read_bytes() == b">hi\x03\x04"
    assert retrograde("replay", output).stdout == b">hi\x03\x04"


@pytest.mark.qemu
def test_ctrl_a_x_ends_it(session: Session, tmp_path: Path, qemu: Qemu) -> None:
    output = tmp_path / "x.retro"
    session.start("record", "-i", "-o", output, "--", *programs.echo(tmp_path), program=RETROGRADE)
    session.read_until(b">")
    session.type(b"\x01x")
    status, stderr = session.end()
    assert status == 0, stderr
    assert termios.tcgetattr(session.terminal) == session.before
    assert Recording.open(output).manifest.ending == "interrupted"


@pytest.mark.qemu
def test_ctrl_c_ends_a_plain_stdio_console(session: Session, tmp_path: Path, qemu: Qemu) -> None:
    """As with QEMU's own `-serial stdio`, where signals stay on."""
    words = ["--retrograde-output", tmp_path / "out", *programs.echo(tmp_path), "-serial", "stdio"]
    session.start(*words, program=DROPIN)
    session.read_until(b">")
    assert local_flags(session) & termios.ISIG
    session.type(b"\x03")
    status, stderr = session.end()
    assert status == 0, stderr
    assert termios.tcgetattr(session.terminal) == session.before
    (recording,) = (tmp_path / "out").iterdir()
    assert Recording.open(recording).manifest.ending == "interrupted"


@pytest.mark.qemu
def test_terminal_is_put_back_when_qemu_dies(session: Session, tmp_path: Path, qemu: Qemu) -> None:
    process = session.start(
        *("record", "-i", "-o", tmp_path / "x.retro", "--", *programs.echo(tmp_path)),
        program=RETROGRADE,
    )
    session.read_until(b">")
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    status, stderr = session.end()
    assert status == 4, stderr
    assert termios.tcgetattr(session.terminal) == session.before


def test_terminal_is_put_back_when_nothing_starts(session: Session, tmp_path: Path) -> None:
    words = ["record", "-i", "-o", tmp_path / "x.retro", "--", "-M", "nosuch"]
    session.start(*words, program=RETROGRADE)
    status, _ = session.end()
    assert status in (2, 3)
    assert termios.tcgetattr(session.terminal) == session.before


@pytest.mark.parametrize(
    ("typed", "kept", "left"),
    [
        ([b"plain"], b"plain", 0),
        ([b"\x01x"], b"", 1),
        ([b"a\x01", b"xb"], b"ab", 1),
        ([b"\x01\x01"], b"\x01", 0),
        ([b"\x01a"], b"\x01", 0),
        ([b"\x01q", b"x"], b"x", 0),
        ([b"\x01\x01x"], b"\x01x", 0),
    ],
)
def test_escapes(typed: list[bytes], kept: bytes, left: int) -> None:
    calls: list[None] = []
    escapes = EscapeFilter(lambda: calls.append(None))
    assert b"".join(escapes.pass_on(data) for data in typed) == kept
    assert len(calls) == left
