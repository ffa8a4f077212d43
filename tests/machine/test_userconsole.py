"""Where a command line puts the console."""

from pathlib import Path

import pytest

from retrograde.machine.userconsole import FileConsole, StdioConsole, asked_console

TYPED = StdioConsole(signals=True, escapes=False)
SHARED = StdioConsole(signals=False, escapes=True)


@pytest.mark.parametrize(
    ("line", "console"),
    [
        ("", None),
        ("-nographic", SHARED),
        ("--nographic -m 32", SHARED),
        ("-nographic -nodefaults", None),
        ("-nographic -nodefaults -serial stdio", TYPED),
        ("-serial stdio", TYPED),
        ("-serial mon:stdio", SHARED),
        ("-serial none -serial stdio", TYPED),
        ("-nographic -serial null", None),
        ("-serial stdio -serial file:x", TYPED),
        ("-serial file:/x/boot.log", FileConsole(Path("/x/boot.log"))),
        ("-serial pty", None),
        ("-serial", None),
        ("-chardev stdio,id=c -serial chardev:c", TYPED),
        ("-chardev stdio,mux=on,id=c,signal=off -serial chardev:c", SHARED),
        ("-serial chardev:c -chardev file,id=c,path=/x/y", FileConsole(Path("/x/y"))),
        ("-chardev file,id=c,path=/x/y,append=on -serial chardev:c", None),
        ("-chardev socket,id=c,path=/x -serial chardev:c", None),
        ("-chardev stdio,id=other -serial chardev:c", None),
    ],
)
def test_asked_console(line: str, console: object) -> None:
    assert asked_console(line.split()) == console


def test_relative_paths_are_those_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert asked_console(["-serial", "file:boot.log"]) == FileConsole(tmp_path / "boot.log")
