"""Write the manual page, `share/man/man1/retrograde.1`, from the commands themselves.

`./dev docs` runs this, and a test fails when the page is not what it would write. Exit codes
come from the page that lists them. man(7) tells the macros.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from retrograde.cli.main import COMMANDS, retrograde
from retrograde.version import __version__

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "share" / "man" / "man1" / "retrograde.1"

POSITIONS = """A position is a number of guest instructions since the start: `1_234_567`,
`1.2G`, `350M`, `12k`, `50%`, `start`, `end`, `end-1000`, or `console:TEXT`, where that text
first stood complete on the console (`debugcon:TEXT` and the like on other ports)."""

DROP_IN = """`retrograde-qemu` takes the command line of a `qemu-system-*` and records it. What it
understands itself is `--retrograde-output DIR` and `--retrograde-target NAME`, as the variables
of that name below."""

VARIABLES = {
    "RETROGRADE_OUTPUT": "Folder for the recordings of `retrograde-qemu`; default: the current.",
    "RETROGRADE_TARGET": "Target of a `retrograde-qemu` that is not called `qemu-system-TARGET`.",
    "RETROGRADE_QEMU": "The QEMU that `retrograde-qemu` runs.",
    "CC": "The C compiler that the probe is compiled with, once.",
    "XDG_CACHE_HOME": "Its folder `retrograde` holds what can be made again (`~/.cache`).",
    "XDG_STATE_HOME": "Its folder `retrograde` holds the recording of `retrograde demo` "
    "(`~/.local/state`).",
    "TMPDIR": "For what lives as long as a command.",
}

EXAMPLE = """retrograde record -o boot.retro -- -m 256 -kernel bzImage
retrograde debug boot.retro --at 'console:"Kernel panic"'"""

ROFF = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti"}


def page() -> str:
    """Return the text of the manual page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f'.TH RETROGRADE 1 "" "retrograde {__version__}" "User Commands"'
    yield from (".SH NAME", r"retrograde \- whole-machine time travel on stock QEMU")
    yield from (".SH SYNOPSIS", r"\fBretrograde\fR [\fB\-\-debug\fR] \fICOMMAND\fR ...", ".br")
    yield r"\fBretrograde\-qemu\fR \fIQEMU\-ARGS\fR ..."
    yield from (".SH DESCRIPTION", *_paragraphs(retrograde.help or ""), *_paragraphs(POSITIONS))
    yield from _options(retrograde)
    yield ".SH COMMANDS"
    for name in COMMANDS:
        command = retrograde.get_command(click.Context(retrograde), name)
        assert command is not None
        yield from (f".SS {_escaped(_usage(command, name))}", *_paragraphs(command.help or ""))
        yield from _options(command)
    yield from (".SH RETROGRADE\\-QEMU", *_paragraphs(DROP_IN))
    yield ".SH EXIT STATUS"
    for codes, meaning in _exit_codes():
        yield from (".TP", rf"\fB{codes}\fR", _text(meaning))
    yield ".SH ENVIRONMENT"
    for name, meaning in VARIABLES.items():
        yield from (".TP", rf"\fB{name}\fR", _text(meaning))
    yield from (".SH EXAMPLE", ".nf", *map(_escaped, EXAMPLE.splitlines()), ".fi")
    yield from (".SH SEE ALSO", r"\fBgdb\fR(1), \fBqemu\fR(1)")


def _usage(command: click.Command, name: str) -> str:
    arguments = (one for one in command.params if isinstance(one, click.Argument))
    words = (one.metavar or one.human_readable_name for one in arguments)
    return f"retrograde {name} [OPTIONS] {' '.join(words)}".rstrip()


def _options(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option):
            value = "" if option.is_flag else rf" \fI{_escaped(_metavar(option))}\fR"
            names = ", ".join(rf"\fB{_escaped(name)}\fR" for name in option.opts)
            yield from (".TP", names + value, _text((option.help or "") + _default(option)))


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    kinds = {click.Path: "FILE", click.types.IntParamType: "N", click.types.FloatParamType: "N"}
    return next((word for kind, word in kinds.items() if isinstance(option.type, kind)), "TEXT")


def _default(option: click.Option) -> str:
    if not option.show_default:
        return ""
    told = option.show_default if isinstance(option.show_default, str) else option.default
    return f" Default: {told}."


def _exit_codes() -> Iterator[tuple[str, str]]:
    """Read them from the table in docs/reference/errors.md."""
    table = (ROOT / "docs" / "reference" / "errors.md").read_text()
    for codes, meaning in re.findall(r"^\| (\d[\d, ]*) \| (.*?) \|", table, re.MULTILINE):
        yield codes, f"{meaning[0].upper()}{meaning[1:]}."


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield from (".PP", _text(paragraph))


def _text(text: str) -> str:
    """Return one line of filled text; what is in backticks is bold."""
    return re.sub("`([^`]+)`", r"\\fB\1\\fR", _escaped(" ".join(text.split())))


def _escaped(text: str) -> str:
    """Return `text` as roff prints it: it has uses of its own for some characters."""
    text = "".join(ROFF.get(character, character) for character in text)
    return rf"\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
