"""`retrograde info`: what a recording holds."""

from __future__ import annotations

import click

from retrograde.cli.arguments import RECORDING
from retrograde.cli.output import JSON_OPTION, human_bytes, print_facts, print_json
from retrograde.position import format_position
from retrograde.recording.bundle import Recording


@click.command("info")
@RECORDING
@JSON_OPTION
def command(recording: Recording, as_json: bool) -> None:
    """Show end position, events, console size, checkpoints and inputs of a recording."""
    if as_json:
        print_json({"manifest": recording.manifest, "end": recording.end})
        return
    print_facts(facts(recording))


def facts(recording: Recording) -> dict[str, str]:
    """Return what people want to know about a recording, by name."""
    manifest = recording.manifest
    shared = "shared memory file" if manifest.ram.shared else "private to QEMU"
    sizes = manifest.files
    result = {
        "recording": str(recording.path),
        "machine": f"{manifest.machine.target}, {human_bytes(manifest.ram.bytes)} RAM ({shared})",
        "recorded": f"{manifest.created} in {manifest.seconds:.1f} s by QEMU "
        f"{manifest.qemu.version}",
        "end": f"{format_position(recording.end)} instructions, {manifest.ending}"
        + ("" if manifest.complete else " (incomplete: replays up to its last whole event)"),
        "quirks": ", ".join(manifest.quirks) or "none",
    }
    if "replay.log" in sizes:
        log, events = sizes["replay.log"].bytes, sum(manifest.events.values())
        per_1000 = 1000 * log / max(1, recording.end)
        result["log"] = f"{human_bytes(log)}, {events:_} events, {per_1000:.2f} B/1000 instructions"
    if "console.log" in sizes:
        result["console"] = human_bytes(sizes["console.log"].bytes)
    for entry in manifest.inputs:
        result[f"input {entry.name}"] = f"{human_bytes(entry.bytes)}, sha256 {entry.sha256[:16]}…"
    return result
