"""Arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from retrograde.errors import UsageError
from retrograde.recording.bundle import Recording


def recording_argument(name: str, metavar: str) -> Callable[[Any], Any]:
    """Return an argument that names a recording and is passed on opened; completed as a folder."""
    return click.argument(name, metavar=metavar, callback=_open, shell_complete=_folders)


def _open(ctx: click.Context, param: click.Parameter, value: str) -> Recording:
    del ctx, param
    return Recording.open(value)


def _folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del ctx, param
    return [CompletionItem(incomplete, type="dir")]


def complete_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Have the shell complete an argument of another program as a file."""
    del ctx, param
    return [CompletionItem(incomplete, type="file")]


RECORDING = recording_argument("recording", "NAME.retro")

FORCE = click.option(
    "--force", is_flag=True, help="Try even when QEMU or an input is not the recorded one."
)

PROGRAM = click.Path()
"""A program's name or path, as a string; completed as a file."""

QEMU = click.option("--qemu", metavar="PROGRAM", type=PROGRAM, help="The qemu-system-* to use.")

SYMBOLS = click.option(
    "--symbols",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="vmlinux, System.map or a user program; any number, added to the kernel's own names.",
)


def positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse numbers that are not above zero."""
    del ctx
    if value is not None and not value > 0:
        raise UsageError(f"--{param.name} must be above zero, not {value}.")
    return value


def parse_range(text: str) -> tuple[int, int]:
    """Return address and length of `ADDR[:LEN]`; raises UsageError."""
    address, _, count = text.partition(":")
    try:
        return int(address, 0), int(count or "8", 0)
    except ValueError:
        raise UsageError(
            f"{text!r} is not an address.", "Give ADDR or ADDR:LEN, as in 0xffffffff82a0c3c0:4."
        ) from None
