"""What commands print: tables for people, one JSON document for programs.

Results go to stdout, progress and warnings to stderr. Where stderr is no terminal a wait of more
than two seconds says now and then what it is for. All text passes `visible` here, the last place
before the terminal, also when it goes elsewhere: it is for people, who look at logs on terminals.
JSON, which can, says the same in escapes. Nothing else writes to the terminal but rows.py and what
shows the guest's live console.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from retrograde.cli.waiting import Waiting
from retrograde.position import format_position
from retrograde.visible import visible, visible_json, visible_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")

Progress = Callable[[int], None]
"""Called with the position reached so far."""


def print_json(document: object) -> None:
    """Print a document of builtin types or msgspec structs."""
    click.echo(visible_json(msgspec.json.format(msgspec.json.encode(document), indent=2).decode()))


def print_facts(facts: Mapping[str, str], title: str = "") -> None:
    """Print names and values in two columns."""
    table = _table(title)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(visible(name), visible(value))
    _console().print(table)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows under headers."""
    table = _table(title)
    table.show_header = True
    for header in headers:
        table.add_column(visible(header), overflow="fold")
    for row in rows:
        table.add_row(*map(visible, row))
    _console().print(table)


def say(text: str) -> None:
    """Print lines of text that are a result."""
    click.echo(visible_lines(text))


def note(text: str) -> None:
    """Say on stderr what happened, or why nothing did."""
    click.echo(visible_lines(f"retrograde: {text}"), err=True)


def warn(text: str) -> None:
    """Say something the user should know; does not change the result."""
    note(f"warning: {text}")


@contextlib.contextmanager
def progress(doing: str, total: int | None, meanwhile: str | None = None) -> Iterator[Progress]:
    """Show a bar over positions on stderr while `doing`; `total` None when unknown.

    Beside it the position, millions of instructions a second, and the time left. The first
    position told is where the work begins. `meanwhile` is what is waited for before the first
    position and after the last, if that is something else; "" is nothing.
    """
    if not sys.stderr.isatty():
        around = doing if meanwhile is None else meanwhile
        with Waiting(note, around) as waiting:

            def tell(position: int) -> None:
                of = "" if total is None else f" of {format_position(total)}"
                at = f", at {format_position(position)}{of}" if position else ""
                waiting.tell(around if total and position >= total else f"{doing}{at}")

            yield tell
        return
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed / 1e6:.0f} M/s")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:_}"),
        Rate(),
        TimeElapsedColumn() if total is None else TimeLeft(),
    )
    with Bar(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(doing), total=total)
        yield lambda position: bar.update(task, completed=position)


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Show a bar over `total` things on stderr; told how many are done, and of the others."""
    if not sys.stderr.isatty():
        with Waiting(note, what) as waiting:
            yield lambda done, doing: waiting.tell(f"{what}, {done} of {total}, {doing}")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", markup=False),
    )
    with Bar(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(what), total=total, doing="")
        yield lambda done, doing: bar.update(task, completed=done, doing=visible(doing))


@contextlib.contextmanager
def status(doing: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr, in one line that changes, what is being done."""
    if not sys.stderr.isatty():
        with Waiting(note, doing) as waiting:
            yield waiting.tell
        return
    from rich.text import Text

    with _console(stderr=True).status(Text(visible(doing))) as line:
        yield lambda text: line.update(Text(visible(text)))


def human_bytes(count: int) -> str:
    """Return a size for people: `3.7 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    # What is printed may come from a stranger, or be a path with brackets in it.
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=visible(title) or None, title_justify="left", box=box.SIMPLE, show_header=False
    )
