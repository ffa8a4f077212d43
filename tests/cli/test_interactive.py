"""The guest's console on a terminal: what is typed is recorded, the terminal is put back."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from retrograde.cli.terminal import EscapeFilter
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests.cli.test_dropin import DROPIN
from tests.command import RETROGRADE, SECONDS, retrograde
from tests.system import programs


class Session:
    """A command on a terminal of its own, at which we type and read."""

    def __init__(self) -> None:
        self.keyboard, self.terminal = os.openpty()
        self.before = termios.tcgetattr(self.terminal)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str | Path, program: Sequence[str]) -> subprocess.Popen[bytes]:
        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*program, *map(str, words)],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=subprocess.PIPE,
            preexec_fn=own_terminal,
        )
        return self.process

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def read_until(self, text: bytes) -> bytes:
        seen = b""
        while not seen.endswith(text):
            assert select.select([self.keyboard], [], [], SECONDS)[0], seen
            seen += os.read(self.keyboard, 1)
        return seen

    def end(self) -> tuple[int, str]:
        """Wait for the command's end; return its exit status and stderr."""
        assert self.process
        _, stderr = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, stderr.decode()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        os.close(self.keyboard)
        os.close(self.terminal)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session()
    yield session
    session.close()


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
