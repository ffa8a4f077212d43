"""Commands of gdb for recordings: `retro when`, `retro seek` and so on.

Sourced into gdb by `retrograde debug`; with `retrograde serve`, say `source` and this
file's name. Runs in gdb's own Python (3.7 and later), where retrograde is not installed.
"""

from __future__ import annotations

import base64
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gdb  # type: ignore[import-untyped]  # known only inside gdb

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "index" / "symbols"))
import gdbsymbols  # type: ignore[import-not-found]
import gdbwords  # type: ignore[import-not-found]

del sys.path[:2]

_DEFAULT_PROMPT = "(gdb) "
_POSITION = re.compile(r"at ([0-9_]+) of ([0-9_]+)")
_CONNECTION = re.compile(r"^\* +\d+ +(?:extended-)?remote (.*\S) +Remote ", re.M)
_NOTICED = "with suppress-cli-notifications on -- inferior {}"
"""Selecting an inferior, even the same, is what makes the TUI look where it is."""

_FORMS = ("start", "end", "end-", "console:")


def _ask(line: str) -> str:
    """Run a monitor command of the server and return what it prints."""
    if not (inferior := gdb.selected_inferior()) or not inferior.pid:
        raise gdb.GdbError("gdb is not attached to a recording: say `retro attach`, or quit.")
    answer: str = gdb.execute(f"monitor {line}", to_string=True)
    return answer


def _moved(text: str) -> None:
    """Show the place the server has gone to; gdb does not know that it has."""
    gdb.write(text)
    if _POSITION.match(text):
        gdb.execute("maintenance flush register-cache", to_string=True)
        gdb.execute("maintenance flush dcache", to_string=True)
        gdb.execute(_NOTICED.format(gdb.selected_inferior().num), to_string=True)
        gdb.execute("frame")


def _bookmarks() -> list[str]:
    rows = (line.split() for line in _ask("bookmarks").splitlines())
    return [row[1] for row in rows if len(row) == 2 and row[0][0].isdigit()]


def _matching(words: Iterable[str], text: str) -> list[str]:
    return [word for word in words if word.startswith(text)]


class Retro(gdb.Command):  # type: ignore[misc]
    """Go anywhere in a recorded execution, and ask what happened in it."""

    def __init__(self) -> None:
        super().__init__("retro", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE, True)


class RetroCommand(gdb.Command):  # type: ignore[misc]
    """Base of the commands under `retro`.

    `move` tells that the machine goes elsewhere, `completes` what gdb completes.
    """

    name = ""
    move = False
    completes = gdb.COMPLETE_NONE

    def __init__(self) -> None:
        super().__init__("retro " + self.name, gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run the command."""
        del from_tty
        self.dont_repeat()
        text = _ask(f"{self.name} {self.line(argument)}".strip())
        if self.move:
            _moved(text)
        else:
            gdb.write(text)

    def line(self, argument: str) -> str:
        """Return the monitor command's argument."""
        return argument

    def complete(self, text: str, word: str) -> Any:
        """Complete what gdb completes itself, unless a command knows better."""
        del text, word
        return self.completes


class When(RetroCommand):
    """Print the position, the recording's last one, and what was taken here, if anything was."""

    name = "when"


class Seek(RetroCommand):
    """Go to a position: retro seek 1_234_567 | 1.2G | 50% | end-1000 | console:TEXT | BOOKMARK."""

    name = "seek"
    move = True

    def complete(self, text: str, word: str) -> Any:
        """Complete the forms that are words, and bookmarks."""
        del word
        return _matching((*_FORMS, *_bookmarks()), text)


class Start(RetroCommand):
    """Go to the start of the recording."""

    name = "start"
    move = True


class End(RetroCommand):
    """Go to the end of the recording."""

    name = "end"
    move = True


class Finish(RetroCommand):
    """Go forward out of the current function or handler."""

    name = "finish"
    move = True


class FinishBack(RetroCommand):
    """Go back to where the current function was called, also where it calls itself."""

    name = "finish-back"
    move = True


class Hits(RetroCommand):
    """List when an instruction is reached: retro hits FUNCTION|*ADDRESS."""

    name = "hits"
    completes = gdb.COMPLETE_LOCATION

    def line(self, argument: str) -> str:
        """Return the address of what the argument names."""
        if argument.startswith("*"):
            return str(_address(gdb.parse_and_eval(argument[1:])))
        _, found = gdb.decode_line(argument)
        if not found:
            raise gdb.GdbError(f"There is no {argument}.")
        return str(found[0].pc)


class Disassemble(RetroCommand):
    """Show instructions as the CPU's mode is here, 16-bit code too: retro disassemble [ADDR] [N].

    ADDR is a linear address, the pc's own by default.
    """

    name = "disassemble"

    def line(self, argument: str) -> str:
        """Return the address and number of what the argument names."""
        words = gdb.string_to_argv(argument)
        return " ".join(str(_address(gdb.parse_and_eval(word))) for word in words)


class Mode(RetroCommand):
    """Have a PC shown as the machine its code is for: retro mode [16 | 32 | 64].

    Alone it tells which code the CPU runs here. In 16-bit code $pc is the linear address.
    """

    name = "mode"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Choose, and attach again: gdb learns only then what machine it has."""
        self.dont_repeat()
        text, wanted = _ask(f"mode {argument}".strip()), argument.strip()
        gdb.write(text)
        if wanted and f"is shown as one of {wanted} bits" in text:
            gdb.execute("disconnect", to_string=True)
            _choose_architecture({"16": "i8086", "32": "i386", "64": "i386:x86-64"}[wanted])
            gdb.execute(f"target remote {_served_at[-1]}", from_tty)


def _choose_architecture(name: str) -> None:
    """Have gdb take what it attaches to next for another architecture than the program's.

    It does not as long as it remembers the machine it was attached to: that is replaced by one
    of which nothing is known but the architecture.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(f"<target><architecture>{name}</architecture></target>")
        file.flush()
        for line in (
            "set osabi none",
            f"set tdesc filename {file.name}",
            f"set architecture {name}",
            "unset tdesc filename",
            f"set architecture {name}",
        ):
            gdb.execute(line, to_string=True)


class Attach(gdb.Command):  # type: ignore[misc]
    """Attach to the recording again, after `detach` or `disconnect`; it is where it was."""

    def __init__(self) -> None:
        super().__init__("retro attach", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Connect to the server there was."""
        del argument
        self.dont_repeat()
        if not _served_at:
            raise gdb.GdbError("gdb was not attached before: say `target remote ADDRESS`.")
        gdb.execute(f"target remote {_served_at[-1]}", from_tty)


_served_at: list[str] = []
"""Where the server was last seen."""


def _remember(_event: Any) -> None:
    """Note where the server is, while there is a connection to ask.

    In words, because gdb 13 may abort at its end where Python has held a connection.
    """
    found = _CONNECTION.search(gdb.execute("info connections", to_string=True))
    if found and found.group(1) not in _served_at[-1:]:
        _served_at.append(found.group(1))


class Checkpoint(RetroCommand):
    """Keep this position as the next numbered bookmark."""

    name = "checkpoint"


class Bookmark(RetroCommand):
    """Keep this position under a name: retro bookmark NAME."""

    name = "bookmark"

    def complete(self, text: str, word: str) -> Any:
        """Complete the names there are."""
        del word
        return _matching(_bookmarks(), text)


class Bookmarks(RetroCommand):
    """List the bookmarks of this recording."""

    name = "bookmarks"


class Console(RetroCommand):
    """Print the console up to here, or where a text appears on it: retro console [TEXT]."""

    name = "console"


class Screen(RetroCommand):
    """Write what is on the guest's screen here as a PNG picture: retro screen [FILE]."""

    name = "screen"
    completes = gdb.COMPLETE_FILENAME

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run the command."""
        del from_tty
        self.dont_repeat()
        words = gdb.string_to_argv(argument)
        picture = base64.b64decode(_ask(self.name))
        position = _ask("when").split()[1]
        file = Path(words[0]).expanduser() if words else Path(f"screen-{position}.png")
        try:
            file.write_bytes(picture)
        except OSError as error:
            raise gdb.GdbError(f"{file} cannot be written: {error.strerror}.") from None
        gdb.write(f"{file.absolute()}\n")


class LastWrite(RetroCommand):
    """Find who wrote a variable last: retro last-write EXPRESSION.

    EXPRESSION is a pointer (`&var`: as many bytes as it points to), a variable, or an
    address followed by a number of bytes: retro last-write 0xffffffff82a0c3c0 8
    """

    name = "last-write"
    completes = gdb.COMPLETE_EXPRESSION

    def line(self, argument: str) -> str:
        """Return address and length of what the expression means."""
        words = argument.rsplit(None, 1)
        if len(words) == 2 and words[1].isdigit():
            value = gdb.parse_and_eval(words[0])
            return f"{_address(value)} {words[1]}"
        value = gdb.parse_and_eval(argument)
        kind = value.type.strip_typedefs()
        if kind.code == gdb.TYPE_CODE_PTR:
            target = kind.target().strip_typedefs()
            size = 1 if target.code in (gdb.TYPE_CODE_VOID, gdb.TYPE_CODE_FUNC) else target.sizeof
            return f"{_address(value)} {size}"
        if value.address is not None:
            return f"{_address(value.address)} {kind.sizeof}"
        return f"{_address(value)} 1"


class Symbols(RetroCommand):
    """Load symbols where their code ran: retro symbols [FILE [FOLDER-OF-MODULES...]].

    A Linux kernel is found in the guest's memory, wherever KASLR has put it, and so is a user
    program, whose symbols are added to the others: where its process that runs here has it, else
    where another has. Without FILE those that are loaded are put in place, and with a kernel's
    those of the modules that the guest has at this position: from FOLDERs, else from
    /usr/lib/debug.
    """

    name = "symbols"
    completes = gdb.COMPLETE_FILENAME

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run the command."""
        del from_tty
        self.dont_repeat()
        words = gdb.string_to_argv(argument)
        if words:
            gdbsymbols.load(_ask, Path(words[0]).expanduser().absolute())
        else:
            gdbsymbols.place_again(_ask)
            gdbsymbols.place_programs(_ask)
        if len(words) != 1:
            gdbsymbols.load_modules([Path(word).expanduser() for word in words[1:]])


def _place_again() -> None:
    """Put a kernel in place that `symbol-file` loaded where it was linked; lx-symbols does."""
    inferior = gdb.selected_inferior()
    if inferior is not None and inferior.pid:
        gdbsymbols.place_again(_ask)


def _address(value: Any) -> int:
    return int(value) & ((1 << 64) - 1)


_shown_at: list[str] = []
"""The position of the last prompt: what was taken there is told once."""


def _prompt(current: str) -> str | None:
    """Put the position into gdb's own prompt; leave a user's alone.

    Before it, say which interrupt or exception was taken there.
    """
    if not current.startswith("(gdb"):
        return None
    inferior = gdb.selected_inferior()
    if inferior is None or not inferior.pid:
        return _DEFAULT_PROMPT
    try:
        where, _, taken = _ask("when").partition("\n")
    except gdb.error:
        return _DEFAULT_PROMPT
    found = _POSITION.match(where)
    if not found:
        return _DEFAULT_PROMPT
    if found.group(1) not in _shown_at[-1:]:
        gdb.write(taken)
        _shown_at[:] = [found.group(1)]
    return f"(gdb {found.group(1)}) "


for _command in (
    *(Retro, When, Seek, Start, End, Checkpoint),
    *(Finish, FinishBack, Hits, Disassemble, Mode, Attach),
    *(Bookmark, Bookmarks, Console, Screen, LastWrite, Symbols),
):
    _command()
gdb.prompt_hook = _prompt
gdb.events.stop.connect(_remember)
gdbwords.teach()
gdb.execute("define hookpost-symbol-file\npython _place_again()\nend")
