"""`retrograde-qemu` in the place of QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrograde.cli.dropin import own_options
from retrograde.errors import UsageError
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests.command import SECONDS, Done, assert_error, retrograde
from tests.system import programs

DROPIN = (sys.executable, "-c", "from retrograde.cli.dropin import main; main()")


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where RETROGRADE_OUTPUT says that recordings go."""
    folder = tmp_path / "recordings"
    monkeypatch.setenv("RETROGRADE_OUTPUT", str(folder))
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable `retrograde-qemu`, as the installed one is."""
    script = tmp_path / "bin" / "retrograde-qemu"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nfrom retrograde.cli.dropin import main\nif __name__ == '__main__':\n"
        "    main()\n"
    )
    script.chmod(0o755)
    return script


def dropin(*words: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Done:
    return retrograde(*words, stdin=stdin, cwd=cwd, program=DROPIN)


def only_recording(folder: Path) -> Recording:
    (path,) = folder.iterdir()
    return Recording.open(path)


@pytest.mark.parametrize(
    ("words", "given", "rest"),
    [
        ([], {}, []),
        (["-m", "32"], {}, ["-m", "32"]),
        (["--retrograde-output", "d", "-m", "32"], {"output": "d"}, ["-m", "32"]),
        (["-m", "32", "--retrograde-output=a=b"], {"output": "a=b"}, ["-m", "32"]),
        (["--retrograde-target=arm"], {"target": "arm"}, []),
    ],
)
def test_own_options(words: list[str], given: dict[str, str], rest: list[str]) -> None:
    assert own_options(words) == (given, rest)


@pytest.mark.parametrize("words", [["--retrograde-output"], ["--retrograde-nosuch=1"]])
def test_own_options_not_understood(words: list[str]) -> None:
    with pytest.raises(UsageError, match="not understood"):
        own_options(words)


@pytest.mark.qemu
@pytest.mark.parametrize(
    "question", [["--version"], ["-M", "help"], ["-cpu", "help"], ["-accel", "help"], ["-h"]]
)
def test_questions_are_answered_by_qemu(question: list[str], qemu: Qemu, output: Path) -> None:
    real = subprocess.run([qemu.path, *question], capture_output=True)
    done = dropin(*question)
    # Its help names the program as it was called.
    assert done.stdout == real.stdout
    assert done.status == real.returncode
    assert not output.exists()


@pytest.mark.qemu
@pytest.mark.parametrize("serial", [["-nographic"], ["-serial", "stdio"], ["-serial", "mon:stdio"]])
def test_console_on_stdout(serial: list[str], tmp_path: Path, qemu: Qemu, output: Path) -> None:
    done = dropin(*programs.hello(tmp_path, b"Hello\r\n"), *serial)
    assert (done.status, done.stdout) == (0, b"Hello\r\n")
    recording = only_recording(output)
    assert f"recorded {recording.path}" in done.stderr
    assert recording.manifest.ending == "guest-shutdown"
    assert retrograde("replay", recording.path).stdout == b"Hello\r\n"


@pytest.mark.qemu
def test_without_standard_input(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    done = retrograde(
        *(*programs.hello(tmp_path), "-nographic"),
        program=DROPIN,
        prefix=("sh", "-c", 'exec "$@" <&-', "sh"),
    )
    assert (done.status, done.stdout) == (0, b"hello\n"), done.stderr


@pytest.mark.qemu
def test_no_console_asked_for(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    done = dropin(*programs.hello(tmp_path), "-display", "none")
    assert (done.status, done.stdout) == (0, b"")
    assert only_recording(output).console_path.read_bytes() == b"hello\n"


@pytest.mark.qemu
def test_console_on_stdout_and_in_a_file(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    log = tmp_path / "boot.log"
    log.write_bytes(b"before\n")
    chardev = f"stdio,id=c,signal=off,logfile={log},logappend=on"
    done = dropin(*programs.hello(tmp_path), "-chardev", chardev, "-serial", "chardev:c")
    assert (done.status, done.stdout) == (0, b"hello\n")
    assert log.read_bytes() == b"before\nhello\n"


@pytest.mark.qemu
def test_console_of_record_in_a_file(tmp_path: Path, qemu: Qemu) -> None:
    words = ["-o", tmp_path / "a.retro", "--", *programs.hello(tmp_path)]
    done = retrograde("record", *words, "-serial", "file:boot.log", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert (tmp_path / "boot.log").read_bytes() == b"hello\n"


@pytest.mark.qemu
def test_console_in_a_file(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    arguments = [*programs.hello(tmp_path), "-serial", "file:boot.log"]
    done = dropin(*arguments, cwd=tmp_path)
    assert (done.status, done.stdout) == (0, b"")
    assert (tmp_path / "boot.log").read_bytes() == b"hello\n"
    assert only_recording(output).console_path.read_bytes() == b"hello\n"


@pytest.mark.qemu
def test_input_from_a_pipe_is_recorded(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    with subprocess.Popen(
        [*DROPIN, *programs.echo(tmp_path), "-nographic"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.read(1) == b">"
        stdout, stderr = process.communicate(b"hello\n\x04", timeout=SECONDS)
    assert (process.returncode, stdout) == (0, b"hello\n\x04"), stderr
    recording = only_recording(output)
    assert recording.manifest.events["char_read"] > 0
    assert recording.console_path.read_bytes() == b">hello\n\x04"
    assert retrograde("replay", recording.path).stdout == b">hello\n\x04"


@pytest.mark.qemu
@pytest.mark.parametrize("escape", [b"\x01x"])
def test_ctrl_a_x_ends_it(escape: bytes, tmp_path: Path, qemu: Qemu, output: Path) -> None:
    done = dropin(*programs.echo(tmp_path), "-nographic", stdin=escape)
    assert done.status == 0, done.stderr
    recording = only_recording(output)
    assert (recording.complete, recording.manifest.ending) == (True, "interrupted")
    assert "char_read" not in recording.manifest.events


@pytest.mark.qemu
def test_exit_status_is_qemus(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    done = dropin(*programs.exit_11(tmp_path), "-nographic")
    assert (done.status, done.stdout) == (11, b"!")
    assert only_recording(output).complete


@pytest.mark.qemu
def test_from_a_makefile(tmp_path: Path, qemu: Qemu, output: Path, program: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    arguments = " ".join(programs.hello(tmp_path))
    (tmp_path / "Makefile").write_text(
        f"QEMU ?= qemu-system-x86_64\nrun:\n\t@$(QEMU) {arguments} -nographic -no-reboot\n"
    )
    done = subprocess.run(
        ["make", "-s", "run", f"QEMU={program}"], cwd=tmp_path, capture_output=True, timeout=SECONDS
    )
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    assert only_recording(output).complete


@pytest.mark.qemu
def test_as_a_link_on_path(tmp_path: Path, qemu: Qemu, output: Path, program: Path) -> None:
    """The link must not find itself when it looks for the real QEMU."""
    program.with_name("qemu-system-x86_64").symlink_to(program.name)
    done = retrograde(
        *programs.hello(tmp_path),
        "-nographic",
        program=("qemu-system-x86_64",),
        environment={"PATH": f"{program.parent}:{os.environ['PATH']}"},
        prefix=("env",),
    )
    assert (done.status, done.stdout) == (0, b"hello\n"), done.stderr
    assert only_recording(output).manifest.machine.target == "x86_64"


@pytest.mark.qemu
def test_without_arguments(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    """The plain PC with no disk: its firmware never ends."""
    process = subprocess.Popen(DROPIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    partial = None
    while partial is None or not (partial / "replay.log").exists():
        assert process.poll() is None, process.communicate()
        partial = next(output.iterdir(), None) if output.exists() else None
    process.terminate()
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, stderr
    recording = only_recording(output)
    assert (recording.complete, recording.manifest.ending) == (True, "interrupted")


@pytest.mark.qemu
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    done = dropin(*programs.hello(tmp_path), "-nographic", "-localtime")
    assert_error(done, 2, "-localtime cannot be recorded", "time zone")
    assert not output.exists()


def test_no_such_target(output: Path) -> None:
    done = retrograde(program=DROPIN, environment={"RETROGRADE_TARGET": "nosuch"})
    assert_error(done, 3, "qemu-system-nosuch is not installed")
    done = dropin("--retrograde-target", "nosuch2", "--version")
    assert_error(done, 3, "qemu-system-nosuch2 is not installed")


@pytest.mark.qemu
def test_output_directory_by_option(tmp_path: Path, qemu: Qemu, output: Path) -> None:
    folder = tmp_path / "elsewhere"
    done = dropin("--retrograde-output", folder, *programs.hello(tmp_path))
    assert done.status == 0, done.stderr
    assert only_recording(folder).complete
    assert not output.exists()
