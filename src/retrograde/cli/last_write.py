"""`retrograde last-write`: who wrote some bytes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, QEMU, RECORDING, parse_range
from retrograde.cli.output import JSON_OPTION, Progress, print_facts, print_json, progress
from retrograde.errors import AnswerNo
from retrograde.position import format_position
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.machine.qemu import Qemu
    from retrograde.timeline.lastwrite import Write
    from retrograde.timeline.reading import Space


@click.command("last-write")
@RECORDING
@click.argument("where", metavar="ADDR[:LEN]")
@click.option("--at", default="end", metavar="POSITION", help="Before which; default: the end.")
@click.option("--physical", is_flag=True, help="The address is a physical one.")
@QEMU
@FORCE
@JSON_OPTION
def command(
    recording: Recording,
    where: str,
    at: str,
    physical: bool,
    qemu: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Tell who wrote the bytes at an address last: position, pc, old and new value.

    With an index (`retrograde index`) this takes a fraction of a second.
    """
    from retrograde.machine.compat import qemu_for

    address, count = parse_range(where)
    program = qemu_for(recording, qemu, force=force)
    meanwhile = "looking for the last write"
    with progress("making checkpoints", recording.end, meanwhile) as show:
        answer = signals.run(_ask(recording, program, address, count, at, physical, show))
    if answer is None:
        raise AnswerNo(f"Nothing wrote {where} before {at}.")
    found, symbol = answer
    if as_json:
        print_json(
            {
                "position": found.position,
                "pc": found.pc,
                "symbol": symbol,
                "physical": found.physical,
                "old": found.old.hex(),
                "new": found.new.hex(),
            }
        )
        return
    by = "a device (DMA) or a page walk" if found.pc is None else f"{found.pc:#x} {symbol or ''}"
    print_facts(
        {
            "position": format_position(found.position),
            "by": by.rstrip(),
            "old": found.old.hex(" "),
            "new": found.new.hex(" "),
            "physical": f"{found.physical:#x}",
        }
    )


async def _ask(
    recording: Recording,
    qemu: Qemu,
    address: int,
    count: int,
    at: str,
    physical: bool,
    show: Progress,
) -> tuple[Write, str | None] | None:
    """Return the write, and the name of what wrote."""
    from retrograde.investigation.investigation import Investigation

    space: Space = "physical" if physical else "virtual"
    async with Investigation(recording, qemu, progress=show) as seen:
        found = await seen.last_write(address, count, space, at=at)
        if found is None:
            return None
        return found, await seen.name(found.pc, found.position) if found.pc else None
