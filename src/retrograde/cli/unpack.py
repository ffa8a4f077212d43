"""`retrograde unpack`: a recording out of its packed file."""

from __future__ import annotations

from pathlib import Path

import click

from retrograde.cli.output import JSON_OPTION, print_json, say
from retrograde.errors import UsageError


@click.command("unpack")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: ARCHIVE without .tar.zst"
)
@click.option(
    "--base",
    "bases",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file that it was packed without, known by its digest.",
)
@JSON_OPTION
def command(archive: Path, output: Path | None, bases: tuple[Path, ...], as_json: bool) -> None:
    """Restore a packed recording; every digest is checked before it takes its name."""
    from retrograde.recording.archive import SUFFIX, unpack

    if output is None:
        if not archive.name.endswith(SUFFIX):
            raise UsageError(f"{archive} does not end in {SUFFIX}.", "Name the output with -o.")
        output = Path(archive.name.removesuffix(SUFFIX))
    recording = unpack(archive, output, bases=bases)
    if as_json:
        print_json({"unpacked": str(recording.path), "end": recording.end})
    else:
        say(f"{recording.path}: {recording.end:_} instructions")
