"""`retrograde index`: make the tables that questions are answered from."""

from __future__ import annotations

import asyncio
import os
import time

import click

from retrograde.cli.arguments import FORCE, QEMU, RECORDING
from retrograde.cli.output import JSON_OPTION, human_bytes, print_facts, print_json, progress, warn
from retrograde.recording.bundle import Recording


@click.command("index")
@RECORDING
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=lambda: os.cpu_count() or 1,
    show_default="one a core",
    help="Processes that replay side by side.",
)
@click.option("--tables", metavar="NAME,…", help="Only these tables; default: all.")
@QEMU
@FORCE
@JSON_OPTION
def command(
    recording: Recording,
    jobs: int,
    tables: str | None,
    qemu: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make the index of a recording, or what of it is missing.

    It can be interrupted at any time: what is done stays, and the next run goes on there.
    """
    from retrograde.index.build import build
    from retrograde.index.interval import REPLAYED
    from retrograde.index.logtables import LOG_TABLES
    from retrograde.index.store import IndexStore
    from retrograde.machine.compat import qemu_for

    chosen = tables.split(",") if tables else (*LOG_TABLES, *REPLAYED)
    program, began = qemu_for(recording, qemu, force=force), time.monotonic()
    with (
        progress("making checkpoints", recording.end) as surveying,
        progress("indexing", recording.end) as indexing,
    ):
        report = asyncio.run(
            build(
                recording,
                program,
                jobs=jobs,
                tables=chosen,
                surveying=surveying,
                progress=indexing,
            )
        )
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
