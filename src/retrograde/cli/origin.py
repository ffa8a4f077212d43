"""`retrograde origin`: where a value came from, step by step back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, QEMU, RECORDING, parse_range
from retrograde.cli.output import JSON_OPTION, Progress, print_json, progress
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.index.questions.origin import Step
    from retrograde.machine.qemu import Qemu
    from retrograde.timeline.reading import Space

COLUMNS = (
    *(("position", "BIGINT"), ("kind", "VARCHAR"), ("pc", "UBIGINT")),
    *(("symbol", "VARCHAR"), ("instruction", "VARCHAR"), ("what", "VARCHAR")),
)


@click.command("origin")
@RECORDING
@click.argument("where", metavar="ADDR[:LEN]|REGISTER")
@click.option("--at", default="end", metavar="POSITION", help="As it is there; default: the end.")
@click.option("--physical", is_flag=True, help="The address is a physical one.")
@click.option(
    "--most", type=click.IntRange(min=1), default=50, show_default=True, help="Steps back."
)
@QEMU
@FORCE
@JSON_OPTION
def command(
    recording: Recording,
    where: str,
    at: str,
    physical: bool,
    most: int,
    qemu: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Follow a value in memory, or in a register, back to where it came from.

    Through stores, loads and copies, to a constant, a computation or something from
    outside; the newest step first. Each position is one to go to.
    """
    from retrograde.cli.rows import Listed, write_table
    from retrograde.machine.compat import qemu_for

    value = where if where.isidentifier() else parse_range(where)
    program = qemu_for(recording, qemu, force=force)
    meanwhile = "following the value back"
    with progress("making checkpoints", recording.end, meanwhile) as show:
        steps = signals.run(_ask(recording, program, value, at, physical, most, show))
    rows = [
        (step.position, step.kind, step.pc, name, step.instruction, step.what)
        for step, name in steps
    ]
    if as_json:
        print_json([dict(zip((name for name, _ in COLUMNS), row, strict=True)) for row in rows])
    else:
        write_table(Listed(list(COLUMNS), rows), sys.stdout)


async def _ask(
    recording: Recording,
    qemu: Qemu,
    value: str | tuple[int, int],
    at: str,
    physical: bool,
    most: int,
    show: Progress,
) -> list[tuple[Step, str | None]]:
    """Return the steps, and the names of what did them."""
    from retrograde.investigation.investigation import Investigation

    where, count = (value, 0) if isinstance(value, str) else value
    space: Space = "physical" if physical else "virtual"
    async with Investigation(recording, qemu, progress=show) as seen:
        steps = await seen.origin(where, count, space, at=at, most=most)
        return [
            (step, await seen.name(step.pc, step.position) if step.pc else None) for step in steps
        ]
