"""From a kernel's panic back to the write that caused it, in stock gdb.

    python examples/panic/session.py [FOLDER]

Compiles jobs.c as the first process of a Debian kernel, records the boot until the kernel
panics, and types COMMANDS into `retrograde debug`. Prints what the terminal shows: the
README's first session is that.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from retrograde.guests import cpio, reference_guest

COMMANDS = (
    "break run_all",
    "reverse-continue",
    "print jobs[2]",
    "watch -l jobs[2].run",
    "reverse-continue",
    "backtrace",
)
LAST_WORDS = r"grep -E 'init\[1\]|Kernel panic -' panic.retro/console.log"
PROMPT = re.compile(rb"\(gdb [0-9_]+\) $")
SECONDS = 120.0


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else scratch).absolute()
        image = compile_init(folder)
        debugger = ["retrograde", "debug", "panic.retro", "--at", "console:Kernel panic"]
        record(folder, image)
        print(f"$ {LAST_WORDS}")
        words = ["sh", "-c", LAST_WORDS]
        print(subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout)
        print("$ retrograde debug panic.retro --at 'console:Kernel panic' --symbols init")
        print(type_into([*debugger, "--symbols", "init"], folder))


def compile_init(folder: Path) -> Path:
    shutil.copy(Path(__file__).with_name("jobs.c"), folder)
    plain = ("-Og", "-g", "-static", "-nostdlib", "-no-pie", "-fno-stack-protector")
    words = ["cc", *plain, "-fcf-protection=none", "jobs.c", "-o", "init"]
    subprocess.run(words, cwd=folder, check=True)
    return folder / "init"


def record(folder: Path, init: Path) -> None:
    kernel, _initrd = reference_guest().files
    console = cpio.character_device("dev/console", 5, 1)
    files = [cpio.directory("dev"), console, cpio.program("init", init.read_bytes())]
    (folder / "initrd.cpio").write_bytes(cpio.archive(files))
    machine = ["-m", "128", "-no-reboot", "-kernel", kernel, "-initrd", "initrd.cpio"]
    append = ["-append", "console=ttyS0 panic=-1"]
    words = ["retrograde", "record", "-o", "panic.retro", "--", *machine, *append]
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def type_into(words: list[str], folder: Path) -> str:
    """Run a program on a terminal of its own, type COMMANDS, return what it showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ["TERM"] = "dumb"
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
    shown = wait(terminal)
    for command in ("set height 0", "set width 92", *COMMANDS):
        os.write(terminal, command.encode() + b"\n")
        shown += wait(terminal)
    os.write(terminal, b"quit\ny\n")
    os.waitpid(child, 0)
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.endswith(COMMANDS[0]))
    return "\n".join(line for line in lines[begin:-1] if line)


def wait(terminal: int) -> bytes:
    """Return what is shown until gdb's prompt."""
    shown = b""
    while not PROMPT.search(shown):
        if not select.select([terminal], [], [], SECONDS)[0]:
            raise SystemExit(f"gdb did not come back:\n{shown.decode()}")
        shown += os.read(terminal, 65536)
    return shown


if __name__ == "__main__":
    main()
