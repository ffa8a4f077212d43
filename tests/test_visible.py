"""Text that a terminal shows and does not obey; and that nothing goes round it."""

from __future__ import annotations

import ast
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrograde
from retrograde.visible import MARKS_IN_A_ROW, visible, visible_json, visible_lines

SOURCES = Path(retrograde.__file__).parent

HARMFUL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters that command, reorder or do not show."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("käse 日本 🐚 e\u0301", "käse 日本 🐚 e\u0301"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u200b\ufeff\u2066", r"\u200b\ufeff\u2066"),
        ("\u2028\u3164\ufe0f\u115f\u2800", r"\u2028\u3164\ufe0f\u115f\u2800"),
        ("\U000e0041\udcff", r"\U000e0041\udcff"),
    ],
)
def test_what_is_shown(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_nothing_harmful_is_left(text):
    for shown in (visible(text), visible_lines(text), visible_json(json.dumps(text))):
        for char in shown:
            assert unicodedata.category(char) not in HARMFUL or char in "\n\t"
        assert "\n" not in visible(text)


@given(st.text(alphabet="e\u0301\u0316\u20d0", max_size=60))
def test_marks_do_not_pile_up(text):
    run = 0
    for char in visible(text):
        run = run + 1 if unicodedata.combining(char) else 0
        assert run <= MARKS_IN_A_ROW


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_json_says_the_same(document):
    for ascii_only in (True, False):
        text = json.dumps(document, ensure_ascii=ascii_only, indent=1)
        assert json.loads(visible_json(text)) == document


DOORS = {
    "cli/main.py": {"click.echo", "traceback.format_exception"},
    "cli/output.py": {"click.echo"},
    "cli/terminal.py": {"os.write"},  # the guest's live console
    "cli/replay.py": {"sys.stdout.buffer.write"},  # the same
    "verify/matrixtrial.py": {"sys.stdout.buffer.write"},  # to our own pipe
    "index/tables/worker.py": {"os.write"},  # the same
    "machine/switchboard.py": {"os.write"},  # to files that the user named for serial ports
    "gdbserver/gdbinit.py": {"gdb.write"},  # what the server said
    "gdbserver/gdbsymbols.py": {"gdb.write"},  # names it has looked at, and the user's files
}
"""What may write to a standard stream, and where."""


def writers(source: str) -> set[str]:
    """Return the functions in `source` that could write to a terminal, if they are called."""
    called = {ast.unparse(n.func) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)}
    streams = ("sys.stdout.", "sys.stderr.", "click.echo", "click.secho", "traceback.", "gdb.write")
    return {
        name
        for name in called
        if name in ("print", "os.write", "rich.print")
        or (
            name.startswith(streams)
            and name.rpartition(".")[2] in ("write", "writelines", "echo", "secho", "write")
        )
        or (name.startswith("traceback.") and name != "traceback.extract_tb")
    }


def test_nothing_else_writes_to_the_terminal():
    found = {
        str(path.relative_to(SOURCES)): names
        for path in sorted(SOURCES.rglob("*.py"))
        if (names := writers(path.read_text(encoding="utf-8")))
    }
    assert found == DOORS


def test_writers_are_seen():
    assert writers("print(1)\nclick.secho(x)\nsys.stderr.write(x)\ntraceback.print_exc()") == {
        *("print", "click.secho", "sys.stderr.write", "traceback.print_exc")
    }
