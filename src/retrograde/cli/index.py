"""`retrograde index`: make the tables that questions are answered from."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from retrograde.cli import signals
from retrograde.cli.arguments import FORCE, QEMU, RECORDING, parse_range
from retrograde.cli.output import JSON_OPTION, human_bytes, print_facts, print_json, progress, warn
from retrograde.errors import UsageError
from retrograde.recording.bundle import Recording

if TYPE_CHECKING:
    from retrograde.machine.qemu import Qemu


@click.command("index")
@RECORDING
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: os.cpu_count() or 1,
    show_default="one a core",
    help="Processes that replay side by side.",
)
@click.option(
    "--cluster",
    metavar="tcp://HOST:PORT",
    help="Have the workers of this dask scheduler replay, which see the recording too.",
)
@click.option(
    "--fetch",
    metavar="URL",
    help="Where those workers get the recording, packed or not, if they do not see it.",
)
@click.option("--tables", metavar="NAME,…", help="Only these tables; default: all.")
@click.option(
    "--writes",
    metavar="WHERE",
    help="Only the table of stores: to ADDR[:LEN], or all.",
)
@click.option("--physical", is_flag=True, help="The address of --writes is a physical one.")
@click.option("--from", "start", default="0", metavar="POSITION", help="Stores from there on.")
@click.option("--to", "stop", default="end", metavar="POSITION", help="Stores before that.")
@QEMU
@FORCE
@JSON_OPTION
def command(
    recording: Recording,
    jobs: int,
    cluster: str | None,
    fetch: str | None,
    tables: str | None,
    writes: str | None,
    physical: bool,
    start: str,
    stop: str,
    qemu: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make the index of a recording, or what of it is missing.

    It can be interrupted at any time: what is done stays, and the next run goes on there.
    With --writes, the stores at these positions are added to the table `writes`, which
    holds all stores or those to one range of addresses.
    """
    from retrograde.index.tables.build import build
    from retrograde.index.tables.interval import REPLAYED
    from retrograde.index.tables.logtables import LOG_TABLES
    from retrograde.index.tables.store import IndexStore
    from retrograde.machine.compat import qemu_for
    from retrograde.machine.triplefault import find_fault

    if writes:
        if cluster or fetch:
            raise UsageError("--writes replays here.", "Leave --cluster and --fetch out.")
        span = recording.resolve(start), recording.resolve(stop)
        _add_writes(
            recording, qemu_for(recording, qemu, force=force), writes, physical, span, as_json
        )
        return
    chosen = tables.split(",") if tables else (*LOG_TABLES, *REPLAYED)
    program, began = qemu_for(recording, qemu, force=force), time.monotonic()
    with (
        progress("making checkpoints", recording.end, "") as surveying,
        progress("indexing", recording.end) as indexing,
    ):
        report = signals.run(
            build(
                recording,
                program,
                jobs=jobs,
                cluster=cluster,
                fetch=fetch,
                tables=chosen,
                surveying=surveying,
                progress=indexing,
            )
        )
    signals.run(find_fault(recording, program))
    for trouble in report.troubles:
        warn(trouble)
    size = IndexStore(recording).bytes
    if as_json:
        print_json({"intervals": report.intervals, "bytes": size})
        return
    print_facts(
        {
            "replayed": f"{report.intervals} intervals in {time.monotonic() - began:.1f} s",
            "index": f"{human_bytes(size)}, {size / max(1, recording.end):.3f} B/instruction",
        }
    )


def _add_writes(
    recording: Recording,
    qemu: Qemu,
    where: str,
    physical: bool,
    span: tuple[int, int],
    as_json: bool,
) -> None:
    from retrograde.index.questions.writes import build_writes
    from retrograde.timeline.stops import watch_of

    watch = None
    if where != "all":
        address, count = parse_range(where)
        watch = watch_of(address, count, "w", physical=physical)
    with (
        progress("making checkpoints", recording.end, "") as surveying,
        progress("tracing stores", recording.end) as tracing,
    ):
        report = signals.run(
            build_writes(recording, qemu, watch, span, surveying=surveying, progress=tracing)
        )
    if as_json:
        print_json({"stores": report.rows})
    else:
        print_facts({"stores": f"{report.rows:_} added to the table writes"})
