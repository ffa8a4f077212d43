"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from retrograde.errors import UsageError
from retrograde.recording.bundle import Recording


def open_recording(ctx: click.Context, param: click.Parameter, value: str) -> Recording:
    """Open the recording that an argument names."""
    del ctx, param
    return Recording.open(value)


RECORDING = click.argument("recording", callback=open_recording, metavar="NAME.retro")

FORCE = click.option(
    "--force", is_flag=True, help="Try even when QEMU or an input is not the recorded one."
)

QEMU = click.option("--qemu", metavar="PROGRAM", help="The qemu-system-* to use.")

SYMBOLS = click.option(
    "--symbols",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="vmlinux, ELF file or System.map (default: the kernel's own, out of its memory).",
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
