"""Five things to do with a recording that nothing else does, for `retrograde demo`.

What a command of ours can show is shown by that command, as it was typed.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrograde.cli import signals
from retrograde.cli.output import progress, say
from retrograde.errors import InternalError
from retrograde.position import format_position
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.index.symbols.symbols import Symbols
    from retrograde.timeline.timeline import Timeline

_COLUMNS = 80

BACK = 1_000_000
VARIABLE = "total_forks"
"""Processes the kernel made since it started; written where one is (kernel/fork.c)."""

LONGEST = """
    SELECT name, instructions FROM functions
    WHERE name LIKE '%init' ORDER BY 2 DESC LIMIT 5"""

_CALLERS = """
    SELECT depth, name FROM functions
    WHERE position < ? AND return_position > ? AND NOT starts_with(name, '__')
    ORDER BY position"""
"""Names with two underscores are of thunks and tracing, which nobody asks about."""


def run(*words: str, folder: Path) -> None:
    """Show a command of ours as it is typed in `folder`, and do it there."""
    from retrograde.cli.main import retrograde

    show(*words)
    with contextlib.chdir(folder):
        retrograde.main([*words], prog_name="retrograde", standalone_mode=False)


def show(*words: str) -> None:
    """Show a command of ours as it is typed, on as many lines as it takes."""
    lines = ["$ retrograde"]
    for part in _parts(map(_quoted, words)):
        if len(lines[-1]) + len(part.partition("\n")[0]) > _COLUMNS - len("  \\"):
            lines.append("   ")
        lines[-1] += f" {part}"
    say(" \\\n".join(lines))


def _parts(words: Iterable[str]) -> list[str]:
    """Return the words of a command with each option's value beside it."""
    parts: list[str] = []
    for word in words:
        if parts and parts[-1].startswith("-") and " " not in parts[-1] and word[0] != "-":
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts


def _quoted(word: str) -> str:
    # In SQL single quotes stand for text, and a line break is readable.
    return f'"{word}"' if "'" in word or "\n" in word else shlex.quote(word)


def take(boot: Recording, broken: Recording, line: str) -> None:
    """Go through all five, with two indexed boots; `line` is on the console of the first."""
    from retrograde.index.symbols.symbols import Symbols

    at = f"console:{line}"
    symbols = Symbols.of(boot)
    kernel = symbols.everywhere
    if VARIABLE not in kernel.names:
        raise InternalError(f"The kernel of {boot.path} has no {VARIABLE}.")
    signals.run(_moments(boot, at, symbols))
    heading("3. Who wrote this? In the kernel's own words")
    address = kernel.addresses[kernel.names.index(VARIABLE)]
    say(f"{VARIABLE} is at {address:#x}. Its last writer before that line was\n")
    run("last-write", boot.name, f"{address:#x}:8", "--at", at, folder=boot.path.parent)
    heading("4. One question in SQL")
    say("Which parts of the kernel took the most instructions to start?\n")
    run("query", boot.name, LONGEST, folder=boot.path.parent)
    heading("5. Two boots side by side")
    panicked = format_position(broken.resolve("console:Kernel panic"))
    say(f"The second has no initrd. At {panicked} its console says\n")
    say(f"{_panic(broken)}\n\nWhere do the two part?\n")
    run("diff", "--align", "calls", boot.name, broken.name, folder=boot.path.parent)


def heading(text: str) -> None:
    """Begin a part."""
    say(f"\n{text}\n")


def _panic(broken: Recording) -> str:
    lines = broken.console_bytes().decode(errors="replace").splitlines()
    return next(line.rstrip() for line in lines if "Kernel panic" in line)


async def _moments(boot: Recording, at: str, symbols: Symbols) -> None:
    """Go to a line's moment, and a million instructions back from there."""
    from retrograde.investigation.investigation import Investigation

    async with contextlib.AsyncExitStack() as opened:
        with progress("making checkpoints", boot.end, "opening the recording") as report:
            seen = await opened.enter_async_context(Investigation(boot, progress=report))
            timeline = await opened.enter_async_context(await seen.timeline(at))
        heading("1. A line of the console is a moment")
        position = timeline.position
        say(f"{_line(boot, position)}\n")
        say(f"was complete after {format_position(position)} of {format_position(boot.end)}")
        say(f"instructions, in {await _place(timeline, symbols)}, for")
        for depth, name in enumerate(_callers(boot, position)):
            say(f"  {'  ' * depth}{name}")
        say("\nTo be there in gdb:")
        show("debug", boot.name, "--at", at)
        heading("2. Back a million instructions, in no time")
        began = time.monotonic()
        await timeline.seek(position - BACK)
        took = time.monotonic() - began
        say(f"It took {took:.2f} s to {format_position(position - BACK)},")
        say(f"in {await _place(timeline, symbols)}.")
        began = time.monotonic()
        await timeline.step_back()
        first = time.monotonic() - began
        began = time.monotonic()
        for _ in range(100):
            await timeline.step_back()
        rest = time.monotonic() - began
        say(f"A step back from there took {first:.2f} s, a hundred more {rest:.4f} s,")
        say(f"now in {await _place(timeline, symbols)}.")
        say("\nIn gdb `reverse-stepi`, `reverse-continue` and `retro seek` go back:")
        show("debug", boot.name, "--at", format_position(timeline.position))


async def _place(timeline: Timeline, symbols: Symbols) -> str:
    pc = await timeline.pc()
    return symbols.lookup(pc) or f"{pc:#x}"


def _line(boot: Recording, position: int) -> str:
    """Return the console's last line at a position, as far as it has come."""
    text = boot.console_bytes()[: boot.console.bytes_until(position)]
    return text.decode(errors="replace").splitlines()[-1]


def _callers(boot: Recording, position: int) -> Sequence[str]:
    """Return the functions that ran then, the outermost first, of the stack used last."""
    from retrograde.index.database import Database

    with Database(boot) as database:
        rows = database.query(_CALLERS, [position, position]).all()
    outermost = max((n for n, (depth, _) in enumerate(rows) if depth == 0), default=0)
    return [name for _, name in rows[outermost:]]
