"""`retrograde pack`: one compressed file of a recording."""

from __future__ import annotations

from pathlib import Path

import click

from retrograde.cli.arguments import RECORDING
from retrograde.cli.output import JSON_OPTION, human_bytes, print_json, say
from retrograde.recording.bundle import Recording
from retrograde.recording.claim import PARTIAL


@click.command("pack")
@RECORDING
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: NAME.retro.tar.zst")
@click.option(
    "--without-base",
    "without",
    metavar="NAME",
    multiple=True,
    help="Leave out an input, as `info` names it: whoever unpacks it has the file.",
)
@JSON_OPTION
def command(
    recording: Recording, output: Path | None, without: tuple[str, ...], as_json: bool
) -> None:
    """Make one file (tar, zstd) to send to somebody; the cache stays behind."""
    from retrograde.recording.archive import pack

    target = output or Path(recording.name.removesuffix(PARTIAL) + ".tar.zst")
    pack(recording, target, without=without)
    size = target.stat().st_size
    if as_json:
        print_json({"packed": str(target), "bytes": size})
    else:
        say(f"{target}: {human_bytes(size)}")
