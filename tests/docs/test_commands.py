"""Every command line in the documentation is one that exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from retrograde.cli.main import COMMANDS, retrograde
from tests.docs.pages import ROOT, inline_code, page, pages, shell_lines

SEPARATORS = re.compile(r"\s*(?:&&|\|\||;|\||\bdo\b|>\S*)\s*")


def commands(path: Path, program: str) -> Iterator[list[str]]:
    """Yield the words after `program` for each use of it on a page, in blocks and in prose."""
    text = path.read_text()
    prose = (span for span in inline_code(text) if span.startswith(f"{program} "))
    for line in (*shell_lines(text), *prose):
        for part in SEPARATORS.split(line):
            words = shlex.split(part)
            if words and words[0] == program:
                yield words[1:]


def options(command: click.Command) -> set[str]:
    context = click.Context(command, help_option_names=["-h", "--help"])
    return {name for parameter in command.get_params(context) for name in parameter.opts}


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_commands_and_options_exist(path: Path) -> None:
    for name, *words in commands(path, "retrograde"):
        if name.startswith("-"):
            assert name in options(retrograde)
            continue
        assert name in COMMANDS, f"{path.name}: retrograde {name}"
        command = retrograde.get_command(click.Context(retrograde), name)
        assert command is not None
        ours = words[: words.index("--")] if "--" in words else words
        used = {word.partition("=")[0] for word in ours if word.startswith("-")}
        assert used <= options(command), f"{path.name}: retrograde {name} {words}"


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_dev_commands_exist(path: Path) -> None:
    script = (ROOT / "dev").read_text()
    known = set(re.findall(r"^([a-z]+)\)$", script, re.MULTILINE))
    assert {words[0] for words in commands(path, "./dev") if words} <= known


def test_the_pages_do_show_commands() -> None:
    used = {words[0] for path in pages() for words in commands(path, "retrograde")}
    assert {"record", "replay", "debug", "pack", "unpack"} <= used


def test_the_reference_is_generated_from_the_program() -> None:
    text = page("reference/commands.md")
    assert ".. click:: retrograde.cli.main:retrograde" in text
    assert ":nested: full" in text
