"""`retrograde diff`: where two runs of one machine part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from retrograde.cli import processes, signals
from retrograde.cli.arguments import recording_argument
from retrograde.cli.output import (
    JSON_OPTION,
    print_facts,
    print_json,
    print_table,
    say,
    status,
    warn,
)
from retrograde.errors import UsageError
from retrograde.position import format_position
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.index.compare.aligneddiff import Call, Comparison, Parting
    from retrograde.index.compare.processdiff import Past
    from retrograde.index.symbols.symbols import Symbols
    from retrograde.machine.gdb.targetdesc import RegisterValues

Both = tuple[Recording, Recording]


@click.command("diff")
@recording_argument("first", "A.retro")
@recording_argument("second", "B.retro")
@click.option(
    "--align",
    type=click.Choice(["calls"]),
    help="Compare the calls of each stack instead, without those of interrupt handlers.",
)
@click.option(
    "--process",
    metavar="NAME",
    help="Compare what a process of Linux did in user mode, from its first instruction on.",
)
@click.option(
    "--past",
    type=click.Choice(["inputs", "threads"]),
    multiple=True,
    help="With --process: pass over differences by other inputs than clocks, or by threads.",
)
@JSON_OPTION
def command(
    first: Recording,
    second: Recording,
    align: str | None,
    process: str | None,
    past: tuple[Past, ...],
    as_json: bool,
) -> int:
    """Find the first position at which two recordings run another instruction.

    Faster and surer when both are indexed. With --align interrupts may have come at other
    positions; both must be indexed then. With --process, too: what the kernel does and where
    things were mapped is left out, and differences by the host's clock are named and passed over.
    Exit code 1 when they differ.
    """
    both = first, second
    if past and process is None:
        raise UsageError("--past goes with --process.", "Name a process of both.")
    if process is not None:
        if align:
            raise UsageError("--align and --process exclude each other.", "Give one of them.")
        return processes.command(both, process, past=past, as_json=as_json)
    return _by_calls(both, as_json) if align else _by_instructions(both, as_json)


def _by_instructions(both: Both, as_json: bool) -> int:
    from retrograde.index.compare.diff import find_difference

    with status("comparing the logs") as show:
        found = signals.run(find_difference(*both, show))
    if found is None:
        if as_json:
            print_json({"position": None})
        else:
            say("No difference: both recordings run the same instructions.")
        return 0
    names = _symbols(both)
    labels = [_label(symbols, side.pc) for symbols, side in zip(names, found.sides, strict=True)]
    states = [side.registers for side in found.sides]
    positions = [found.position] * 2
    if as_json:
        print_json(
            {
                "position": found.position,
                "input_position": found.input_position,
                "before": found.before,
                "pc": [side.pc for side in found.sides],
                "symbol": [s.lookup(side.pc) for s, side in zip(names, found.sides, strict=True)],
                **_surroundings(both, positions, states),
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
    _print_surroundings(both, positions, states)
    return 1


def _by_calls(both: Both, as_json: bool) -> int:
    from retrograde.index.compare.aligneddiff import compare_calls, registers_at
    from retrograde.index.compare.diff import other_inputs

    if other := " and ".join(other_inputs(*both)):
        warn(f"They were started with another {other}: addresses are compared as they are.")
    with status("comparing calls") as show:
        found = compare_calls(*both, show)
        parting = found.partings[0] if found.partings else None
        positions = [call.position for call in parting.calls] if parting else []
        show("reading registers")
        states = [
            signals.run(registers_at(recording, position))
            for recording, position in zip(both, positions, strict=False)
        ]
    counts = {
        "calls": found.calls,
        "common": found.common,
        "skipped": found.skipped,
        "alone": found.alone,
        "left": found.left,
        "stacks": found.stacks,
        "parted": len(found.partings),
    }
    if parting is None:
        if as_json:
            print_json({"position": None, **counts})
        else:
            say("No difference: no call of both was found to be another.")
            print_facts(_counts(found))
        return 0
    names = _symbols(both)
    if as_json:
        sides = list(zip(names, parting.calls, strict=True))
        print_json(
            {
                "position": positions,
                "pc": [call.pc for call in parting.calls],
                "target": [call.target for call in parting.calls],
                "caller": [symbols.lookup(call.pc) for symbols, call in sides],
                "symbol": [symbols.lookup(call.target) for symbols, call in sides],
                "before": parting.before,
                **counts,
                **_surroundings(both, positions, states),
            }
        )
        return 1
    print_facts({**_parting(both, names, parting), **_counts(found)})
    _print_surroundings(both, positions, states)
    return 1


def _parting(both: Both, names: Sequence[Symbols], parting: Parting) -> dict[str, str]:
    """Return what each did at its first other call, and what both did last."""
    facts = {
        recording.name: f"at {format_position(call.position)}: {_said(symbols, call)}"
        for recording, symbols, call in zip(both, names, parting.calls, strict=True)
    }
    if parting.before is None:
        return {**facts, "last common": "none on this stack"}
    ours, theirs = parting.before
    where = f"at {format_position(ours.position)} and {format_position(theirs.position)}"
    return {**facts, "last common": f"{where}: {_said(names[0], ours)}"}


def _counts(found: Comparison) -> dict[str, str]:
    def each(numbers: Sequence[int]) -> str:
        return " and ".join(f"{number:_}" for number in numbers)

    return {
        "calls": f"{each(found.calls)}, of which {found.common:_} in both",
        "of handlers": f"{each(found.skipped)} left out",
        "not compared": f"{each(found.alone)} on stacks that only one has, "
        f"{each(found.left)} behind where a stack parts or one recording ends",
        "stacks": f"{found.stacks:_} pages, of which {len(found.partings):_} part",
    }


def _said(symbols: Symbols, call: Call) -> str:
    return f"{_label(symbols, call.target)} called by {_label(symbols, call.pc)}"


def _label(symbols: Symbols, address: int) -> str:
    return f"{address:#x} {symbols.lookup(address) or ''}".strip()


def _symbols(both: Both) -> list[Symbols]:
    from retrograde.index.symbols.symbols import Symbols

    return [Symbols.of(recording) for recording in both]


def _surroundings(
    both: Both, positions: Sequence[int], states: Sequence[RegisterValues]
) -> dict[str, object]:
    """Return the registers that differ and the console of each side, for JSON."""
    registers = {name: [one, other] for name, one, other in _unequal(states)}
    return {"registers": registers, "console": _lines(both, positions)}


def _print_surroundings(
    both: Both, positions: Sequence[int], states: Sequence[RegisterValues]
) -> None:
    rows = [[name, f"{one:#x}", f"{other:#x}"] for name, one, other in _unequal(states)]
    print_table(["register", "A", "B"], rows)
    for recording, shown in zip(both, _lines(both, positions), strict=True):
        say(f"console of {recording.name}:")
        for line in shown:
            say(f"  {line}")


def _unequal(states: Sequence[RegisterValues]) -> Iterator[tuple[str, int, int]]:
    ours, theirs = states
    return ((name, one, theirs[name]) for name, one in ours.items() if theirs[name] != one)


def _lines(both: Both, positions: Sequence[int]) -> list[list[str]]:
    from retrograde.index.compare.diff import lines_around

    return [
        list(lines_around(one, position)) for one, position in zip(both, positions, strict=True)
    ]
