"""`retrograde export`: a recording in the format of another program."""

from __future__ import annotations

from pathlib import Path

import click

from retrograde.cli.arguments import RECORDING, SYMBOLS
from retrograde.cli.output import print_facts, status, warn
from retrograde.recording.bundle import Recording


@click.command("export")
@RECORDING
@click.option(
    "--perfetto",
    "output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Write a trace for ui.perfetto.dev.",
)
@click.option("--from", "start", default="0", metavar="POSITION", help="Begin here.")
@click.option("--to", "stop", default="end", metavar="POSITION", help="End here.")
@click.option(
    "--calls",
    type=click.IntRange(0),
    default=200_000,
    show_default=True,
    help="Take so many calls at most: the longest.",
)
@SYMBOLS
def command(
    recording: Recording,
    output: Path,
    start: str,
    stop: str,
    calls: int,
    symbols: tuple[Path, ...],
) -> None:
    """Write calls by address space, interrupts and console lines as a Perfetto trace.

    One instruction is shown as one nanosecond: the time axis is the position.
    """
    from retrograde.index.export import export

    with status("writing the trace"):
        found = export(
            recording,
            output,
            start=recording.resolve(start),
            stop=recording.resolve(stop),
            calls=calls,
            symbols=symbols,
        )
    for trouble in found.troubles:
        warn(trouble)
    print_facts(
        {
            "calls": f"{found.calls:_} in {found.spaces} address spaces",
            "interrupts": f"{found.interrupts:_}",
            "console": f"{found.lines:_} lines",
            "open": f"https://ui.perfetto.dev, with {output}",
        }
    )
