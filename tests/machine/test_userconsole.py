"""Where a command line puts the console."""

from pathlib import Path

import pytest

from retrograde.machine.userconsole import (
    AskedPlace,
    FileCopy,
    StdioConsole,
    asked_places,
)

NOWHERE = AskedPlace()
TYPED = AskedPlace(StdioConsole(signals=True, escapes=False))
SHARED = AskedPlace(StdioConsole(signals=False, escapes=True))


def copied(*paths: str, append: bool = False) -> AskedPlace:
    return AskedPlace(files=tuple(FileCopy(Path(path), append) for path in paths))


@pytest.mark.parametrize(
    ("line", "console"),
    [
        ("", NOWHERE),
        ("-nographic", SHARED),
        ("--nographic -m 32", SHARED),
        ("-nographic -nodefaults", NOWHERE),
        ("-nographic -nodefaults -serial stdio", TYPED),
        ("-serial stdio", TYPED),
        ("-serial mon:stdio", SHARED),
        ("-serial none -serial stdio", TYPED),
        ("-nographic -serial null", NOWHERE),
        ("-serial stdio -serial file:x", TYPED),
        ("-serial file:/x/boot.log", copied("/x/boot.log")),
        ("-serial pty", NOWHERE),
        ("-serial", NOWHERE),
        ("-chardev stdio,id=c -serial chardev:c", TYPED),
        ("-chardev stdio,mux=on,id=c,signal=off -serial chardev:c", SHARED),
        ("-serial chardev:c -chardev file,id=c,path=/x/y", copied("/x/y")),
        (
            "-chardev file,id=c,path=/x/y,append=on -serial chardev:c",
            copied("/x/y", append=True),
        ),
        (
            "-chardev stdio,id=c,mux=on,logfile=/x/log -serial chardev:c",
            AskedPlace(StdioConsole(True, True), copied("/x/log").files),
        ),
        ("-chardev pty,id=c,logfile=/x/log -serial chardev:c", copied("/x/log")),
        ("-chardev socket,id=c,path=/x -serial chardev:c", NOWHERE),
        ("-chardev stdio,id=other -serial chardev:c", NOWHERE),
    ],
)
def test_where_the_console_is_asked_for(line: str, console: object) -> None:
    assert asked_places(line.split()).get("console", NOWHERE) == console


def test_relative_paths_are_those_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert asked_places(["-serial", "file:boot.log"])["console"] == copied(f"{tmp_path}/boot.log")
