"""The `retrograde` command: finds the subcommand, turns errors into exit codes.

Subcommands are imported when used, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from retrograde.cli import logs, signals, streams
from retrograde.complaints import Complaints, hush
from retrograde.foreign import in_our_words
from retrograde.held import sweep
from retrograde.version import __version__
from retrograde.visible import visible_lines

COMMANDS = {
    "doctor": "What is here, what works, what each quirk probe found.",
    "demo": "What this is for: two boots recorded, five things done with them.",
    "record": "Record a machine: its QEMU arguments follow --.",
    "info": "What a recording holds.",
    "replay": "Run a recording; its console goes to stdout.",
    "verify": "Prove a recording: forwards, backwards, at random positions.",
    "debug": "Open gdb on a recording, able to go both ways.",
    "serve": "Let gdb or lldb attach to a recording.",
    "index": "Make the tables that questions are answered from.",
    "diff": "Where two runs of one machine part: the first other instruction.",
    "query": "Ask a recording in SQL: console, calls, interrupts, writes.",
    "last-write": "Tell who wrote some bytes last.",
    "origin": "Follow a value back to where it came from.",
    "screen": "A picture of the guest's screen at a position.",
    "export": "A trace for ui.perfetto.dev: calls, interrupts, console.",
    "matrix": "Try what the QEMUs here can record, replay and reverse.",
    "pack": "Make one compressed file of a recording.",
    "unpack": "Restore a packed recording.",
}


class _ReaderLeft(Exception):
    """Nobody reads our standard output any more."""


class LazyCommands(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None when there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"retrograde.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. click exits with 1 on a broken pipe, which is our "no"."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name, or an option, without importing commands."""
        names = [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show a traceback with errors.")
def retrograde(debug: bool) -> None:
    """Record any QEMU guest once, then go anywhere in its execution, both ways."""
    del debug  # read by main(), also when parsing fails


def main() -> None:
    """Run the command line; the entry point of the `retrograde` program."""
    run(retrograde, sys.argv[1:])


def run(command: click.Command, arguments: list[str]) -> NoReturn:
    """Run `command` and exit, as `guarded` does."""
    guarded(
        lambda: command.main(arguments, standalone_mode=False),
        show_traceback="--debug" in arguments[:2],
    )


def guarded(action: Callable[[], object], *, show_traceback: bool = False) -> NoReturn:
    """Do `action` and exit: errors as two sentences on stderr, with their exit code."""
    streams.prepare()
    logs.show_warnings()
    complaints = Complaints()
    signals.heed()
    # numpy's OpenBLAS, of which we use nothing, starts a thread for each processor. Where
    # there is no room for them it sends us a SIGINT, which would look like Ctrl-C.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        sweep()
        status = action()
        sys.stdout.flush()
        complaints.tell()
    except click.ClickException as error:
        _show(error)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _leave()
    except (_ReaderLeft, BrokenPipeError):
        streams.drop_output()
        sys.exit(128 + signal.SIGPIPE)  # as a shell reports it
    except Exception as error:
        if signals.is_behind(error):
            _leave()
        if show_traceback:
            complaints.tell()
            _say("".join(traceback.format_exception(error)))
        else:
            hush()
        ours = in_our_words(error)
        _drop_what_is_refused()
        _say(str(ours))
        sys.exit(ours.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _leave() -> NoReturn:
    """Exit as one who was told to end."""
    number = signals.leave()
    _say("Interrupted." if number == signal.SIGINT else f"Ended by {number.name}.")
    sys.exit(128 + number)


def _drop_what_is_refused() -> None:
    """Keep Python from trying again at exit what stdout did not take."""
    try:
        sys.stdout.flush()
    except OSError:
        streams.drop_output()


def _show(error: click.ClickException) -> None:
    """Say what is wrong with the arguments, which may be names of a stranger's files."""
    text = io.StringIO()
    error.show(text)
    with contextlib.suppress(OSError):
        click.echo(visible_lines(text.getvalue()), err=True, nl=False)


def _say(text: str) -> None:
    from retrograde.cli.output import note

    with contextlib.suppress(OSError):  # there is nobody left to tell
        note(text)
