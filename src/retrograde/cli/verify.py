"""`retrograde verify`: prove a recording, forwards, backwards, at random positions."""

from __future__ import annotations

import contextlib
import secrets

import click
import msgspec

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, PROGRAM, QEMU, RECORDING
from retrograde.cli.output import JSON_OPTION, print_facts, print_json, status
from retrograde.errors import AnswerNo
from retrograde.machine.compat import qemu_for
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import quirks_named
from retrograde.position import format_position
from retrograde.recording.bundle import Recording
from retrograde.timeline.proof import Proof, prove_checkpoints
from retrograde.verify.cache import CacheCheck, check_cache
from retrograde.verify.processors import ProcessorsResult, compare_processors
from retrograde.verify.randomly import RandomResult, compare_randomly
from retrograde.verify.scenario import ScenarioResult, run_scenario

INSTEAD = 5
"""Random operations where QEMU cannot go back by itself."""

STOPS = 10
"""Positions that are compared where there are several processors."""


class Verdict(msgspec.Struct, kw_only=True):
    """The JSON document: what was tried and what came of it.

    `unloadable` names the quirk for which there is no scenario.
    """

    verified: bool = True
    unloadable: str | None = None
    scenario: ScenarioResult | None = None
    cache: CacheCheck | None = None
    checkpoints: Proof | None = None
    random: RandomResult | None = None
    processors: ProcessorsResult | None = None
    seed: int | None = None
    difference: str | None = None


@click.command("verify")
@RECORDING
@click.option(
    "--steps", type=click.IntRange(1), default=10, show_default=True, help="Steps each way."
)
@click.option(
    "--random",
    "count",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Compare N random operations with a fresh replay too.",
)
@click.option("--seed", type=int, help="Repeat a run of --random.")
@click.option(
    "--gdb",
    metavar="PROGRAM",
    type=PROGRAM,
    help="gdb to use (default: one that knows the guest).",
)
@QEMU
@FORCE
@JSON_OPTION
def command(
    recording: Recording,
    steps: int,
    count: int,
    seed: int | None,
    gdb: str | None,
    qemu: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Step, step back and run back with real gdb on QEMU's own stub, comparing every pc.

    Looks at the checkpoints and the index in the cache, too: what is damaged there is no
    difference, and used no more.

    --random N proves our checkpoints by replaying from them, dropping those that lead
    astray, and does N random operations of our timeline, each compared with a fresh
    forward replay. Exit code 1 on any difference. Where no snapshot of the machine can be
    loaded, and so QEMU's own stub does not go back, 5 random operations are done instead.

    A recording of several processors is replayed twice with stops at N random positions (10),
    and from a checkpoint, instead of all that.
    """
    if not force:
        recording.check_digests()
    program = qemu_for(recording, qemu, force=force)
    unloadable = _unloadable(recording, program)
    if recording.manifest.machine.vcpus > 1:
        count = count or STOPS
    count = count or (INSTEAD if unloadable else 0)
    verdict = Verdict(
        unloadable=unloadable,
        seed=(secrets.randbits(32) if seed is None else seed) if count else None,
    )
    difference: AnswerNo | None = None
    try:
        signals.run(_verify(recording, program, verdict, steps, count, gdb))
    except AnswerNo as error:
        verdict.verified, verdict.difference, difference = False, error.what, error
    if as_json:
        print_json(verdict)
    else:
        print_facts(_facts(verdict))
    if difference:
        raise difference


def _unloadable(recording: Recording, qemu: Qemu) -> str | None:
    """Return the quirk for which no snapshot of the machine is loaded, None where it can be."""
    manifest = recording.manifest
    quirks = quirks_named(manifest.quirks, tuple(manifest.machine.models()), qemu)
    return next((quirk.name for quirk in quirks if quirk.no_checkpoints), None)


async def _verify(
    recording: Recording, qemu: Qemu, verdict: Verdict, steps: int, count: int, gdb: str | None
) -> None:
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(status("verifying"))
        if recording.manifest.machine.vcpus > 1 and verdict.seed is not None:
            verdict.processors = await compare_processors(
                recording,
                qemu,
                count=count,
                seed=verdict.seed,
                can_load=not verdict.unloadable,
                report=report,
            )
            return
        if not verdict.unloadable:
            verdict.scenario = await run_scenario(
                recording, qemu, steps=steps, gdb=gdb, report=report
            )
        report("looking at the cache")
        verdict.cache = check_cache(recording, qemu)
        if count and verdict.seed is not None:
            report("proving checkpoints")
            verdict.checkpoints = await prove_checkpoints(recording, qemu)
            verdict.random = await compare_randomly(
                recording, qemu, count=count, seed=verdict.seed, report=report
            )


def _facts(verdict: Verdict) -> dict[str, str]:
    facts = {}
    if verdict.unloadable:
        facts["stepped"] = f"not by QEMU, which cannot go back here ({verdict.unloadable})"
    if scenario := verdict.scenario:
        facts["stepped"] = f"{scenario.steps} instructions forward, back and forward again"
        where = "one before the end" if scenario.stopped == "end" else "an instruction met again"
        facts["ran back"] = (
            f"from {format_position(scenario.stopped_at)} ({where}) "
            f"to the last step, pc {scenario.last_pc:#x}"
        )
    if cache := verdict.cache:
        facts["cache"] = (
            f"{cache.checkpoints} checkpoints and {cache.index_files} files of the index are whole"
        )
        if cache.lost:
            facts["damaged"] = f"{', '.join(cache.lost)}: not used any more"
    if several := verdict.processors:
        facts["schedule"] = f"{several.changes:_} changes between {several.vcpus} processors"
        facts["compared"] = (
            f"registers of all processors and RAM at {several.positions} positions in two replays"
        )
        if several.checkpoint is not None:
            facts["loaded"] = (
                f"at {format_position(several.checkpoint)}, "
                f"{'in place and ' if several.in_place else ''}in a new process: "
                f"equal at the {several.after_load} after it"
            )
    if verdict.seed is not None:
        facts["seed"] = str(verdict.seed)
    if proof := verdict.checkpoints:
        facts["checkpoints"] = (
            f"{proof.checkpoints - len(proof.dropped)} of {proof.checkpoints} lead to the next, "
            f"{proof.reached_end} to the end"
        )
    if verdict.random:
        facts["random"] = f"{verdict.random.operations} operations equal to a fresh replay"
    facts["verified"] = "yes" if verdict.verified else f"no: {verdict.difference}"
    return facts
