"""`retrograde diff --process`: what is said of two runs of a process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from retrograde.cli import signals
from retrograde.cli.output import print_facts, print_json, print_table, say, status
from retrograde.position import format_position
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.index.compare.processdiff import Comparison, Parting, Past

_TOLD = 20
"""Differences passed over that are listed; JSON has all."""

Both = tuple[Recording, Recording]


def command(both: Both, name: str, *, past: Collection[Past], as_json: bool) -> int:
    """Compare a process, and say where its runs part; the exit code."""
    with status("comparing") as show:
        found = signals.run(_compare(both, name, past, show))
    if as_json:
        print_json(_document(found))
    else:
        _print(both, found)
    return 1 if found.parting else 0


async def _compare(
    both: Both, name: str, past: Collection[Past], show: Callable[[str], None]
) -> Comparison:
    from retrograde.investigation.investigation import Investigation

    async with Investigation(both[0]) as ours, Investigation(both[1]) as theirs:
        return await ours.compare_process(theirs, name, past=past, progress=show)


def _document(found: Comparison) -> dict[str, object]:
    return {
        "begun": [program.position for program in found.programs],
        "instructions": found.common,
        "threads": found.threads,
        "passed": [_parting(one) for one in found.passed],
        "parting": _parting(found.parting) if found.parting else None,
    }


def _parting(parting: Parting) -> dict[str, object]:
    return {
        "thread": parting.thread,
        "instructions": parting.count,
        "position": parting.positions,
        "pc": parting.addresses,
        "symbol": parting.symbols,
        "before": parting.before,
        "cause": parting.cause.kind,
        "because": parting.cause.what,
        "skipped": parting.met,
        "registers": {name: [one, other] for name, one, other in parting.registers},
    }


def _print(both: Both, found: Comparison) -> None:
    if found.passed:
        say(f"Passed over {len(found.passed)} difference{'s' * (len(found.passed) > 1)}:")
        rows = [_row(one) for one in found.passed[:_TOLD]]
        print_table(["in A", "in B", "comes from"], rows)
        if len(found.passed) > _TOLD:
            say(f"... and {len(found.passed) - _TOLD} more, which --json lists.")
    facts = {
        "begun": " and ".join(format_position(program.position) for program in found.programs),
        "alike": f"{found.common:_} instructions in user mode",
        **({"threads": str(found.threads)} if found.threads > 1 else {}),
    }
    parting = found.parting
    if parting is None:
        other = " other" if found.passed else ""
        say(f"No{other} difference: both runs do the same, as far as both recordings go.")
        print_facts(facts)
        return
    sides = zip(both, parting.positions, parting.addresses, parting.symbols, strict=True)
    for recording, position, address, symbol in sides:
        facts[recording.name] = (
            "ends there"
            if position is None
            else f"at {format_position(position)}: {address:#x} {symbol or ''}".rstrip()
        )
    if parting.thread:
        facts["thread"] = ".".join(map(str, parting.thread))
    if parting.before:
        facts["last common"] = "at " + " and ".join(map(format_position, parting.before))
    facts["comes from"] = parting.cause.what
    if parting.met:
        facts["alike again"] = f"after {parting.met[0]:_} and {parting.met[1]:_} instructions"
    print_facts(facts)
    registers = [[name, f"{one:#x}", f"{other:#x}"] for name, one, other in parting.registers]
    print_table(["register", "A", "B"], registers)


def _row(parting: Parting) -> Sequence[str]:
    where = ("end" if at is None else format_position(at) for at in parting.positions)
    return [*where, parting.cause.what]
