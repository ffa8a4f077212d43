"""`retrograde diff`: where two runs of one machine part."""

from __future__ import annotations

import asyncio

import click

from retrograde.cli.arguments import open_recording
from retrograde.cli.output import JSON_OPTION, print_facts, print_json, print_table, status
from retrograde.position import format_position
from retrograde.recording.bundle import Recording


@click.command("diff")
@click.argument("first", callback=open_recording, metavar="A.retro")
@click.argument("second", callback=open_recording, metavar="B.retro")
@JSON_OPTION
def command(first: Recording, second: Recording, as_json: bool) -> int:
    """Find the first position at which two recordings run another instruction.

    Faster and surer when both are indexed. Exit code 1 when they differ.
    """
    from retrograde.index.diff import find_difference, lines_around
    from retrograde.index.store import IndexStore
    from retrograde.index.symbols import Symbols

    with status("comparing the logs") as show:
        found = asyncio.run(find_difference(first, second, show))
    if found is None:
        if as_json:
            print_json({"position": None})
        else:
            click.echo("No difference: both recordings run the same instructions.")
        return 0
    both = (first, second)
    names = [Symbols.load(IndexStore(recording)) for recording in both]
    labels = [
        f"{side.pc:#x} {symbols.lookup(side.pc) or ''}".strip()
        for side, symbols in zip(found.sides, names, strict=True)
    ]
    ours, theirs = (side.registers for side in found.sides)
    unequal = [name for name, value in ours.items() if theirs[name] != value]
    lines = [list(lines_around(recording, found.position)) for recording in both]
    if as_json:
        print_json(
            {
                "position": found.position,
                "input_position": found.input_position,
                "before": found.before,
                "pc": [side.pc for side in found.sides],
                "symbol": [s.lookup(side.pc) for s, side in zip(names, found.sides, strict=True)],
                "registers": {name: [ours[name], theirs[name]] for name in unequal},
                "console": lines,
            }
        )
        return 1
    before = "" if found.before is None else f", after the instruction at {found.before:#x}"
    print_facts(
        {
            "differ at": format_position(found.position) + before,
            "first input": f"that differs, at {format_position(found.input_position)}",
            **{recording.name: label for recording, label in zip(both, labels, strict=True)},
        }
    )
    rows = [[name, f"{ours[name]:#x}", f"{theirs[name]:#x}"] for name in unequal]
    print_table(["register", "A", "B"], rows)
    for recording, shown in zip(both, lines, strict=True):
        click.echo(f"console of {recording.name}:")
        for line in shown:
            click.echo(f"  {line}")
    return 1
