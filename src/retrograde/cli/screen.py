"""`retrograde screen`: a picture of what was on the guest's screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, QEMU, RECORDING
from retrograde.cli.output import Progress, print_facts, progress
from retrograde.position import format_position
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.machine.qemu import Qemu
    from retrograde.machine.screen import Picture


@click.command("screen")
@RECORDING
@click.option("--at", default="end", metavar="POSITION", help="When; default: the end.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE.png",
    type=click.Path(path_type=Path),
    help="Where to write it.",
)
@QEMU
@FORCE
def command(recording: Recording, at: str, output: Path, qemu: str | None, force: bool) -> None:
    """Write what was on the guest's screen at a position as a PNG picture."""
    from retrograde.machine.compat import qemu_for
    from retrograde.recording.claim import made_whole

    program, position = qemu_for(recording, qemu, force=force), recording.resolve(at)
    with progress("making checkpoints", recording.end) as show:
        picture = signals.run(_look(recording, program, position, show))
    with made_whole(output) as partial:
        partial.write_bytes(picture.png())
    print_facts(
        {
            "position": format_position(position),
            "screen": f"{picture.width} x {picture.height} pixels",
            "picture": str(output),
        }
    )


async def _look(recording: Recording, qemu: Qemu, position: int, show: Progress) -> Picture:
    from retrograde.investigation.investigation import Investigation

    async with Investigation(recording, qemu, progress=show) as seen:
        return await seen.screen(position)
