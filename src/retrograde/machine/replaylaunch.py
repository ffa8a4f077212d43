"""What a replaying QEMU is started with: private copies of all it writes, inherited."""

from __future__ import annotations

import tempfile
from pathlib import Path

from retrograde.machine.command import INITIAL, NOWHERE, Chardev, Launch, RamFile
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import quirks_named
from retrograde.machine.wiring import GdbListener, Wiring, fd_path
from retrograde.recording.bundle import IMAGE, Recording
from retrograde.recording.diskimage import check_self_contained
from retrograde.recording.rrlog import RrLog
from retrograde.recording.rrrepair import write_repaired_copy


def private_images(recording: Recording, wiring: Wiring, folder: Path | None) -> dict[str, int]:
    """Make the private images of one process: snapshots first, then the disks' overlays."""
    _check_images(recording)
    disks = recording.manifest.machine.overlaid()
    names = [f"disk{number}.qcow2" for number in range(len(disks))]
    if folder is not None:
        files = {IMAGE: wiring.memory_copy("vmstate", folder / IMAGE)}
        return files | {name: wiring.disk_copy(folder / name) for name in names}
    files = {IMAGE: wiring.memory_copy("vmstate", recording.image_path)}
    inputs = recording.manifest.inputs
    for name, disk in zip(names, disks, strict=True):
        lowest = recording.input_path(inputs[disk.layers[0].input].name)
        files[name] = wiring.overlay(lowest, INITIAL)
    return files


def _check_images(recording: Recording) -> None:
    """Refuse images that would have QEMU open files nobody checked."""
    check_self_contained(recording.image_path)
    inputs = recording.manifest.inputs
    for disk in recording.manifest.machine.disks():
        for layer in disk.layers:
            if layer.format == "qcow2":
                check_self_contained(recording.input_path(inputs[layer.input].name))


def lay_out(
    recording: Recording,
    qemu: Qemu,
    wiring: Wiring,
    *,
    images: dict[str, int],
    console_fd: int | None,
    gdb_listener: GdbListener | None,
    plugin: str,
) -> Launch:
    """Lay out what QEMU inherits: private copies of all it writes."""
    manifest = recording.manifest
    quirks = quirks_named(manifest.quirks)
    ram = wiring.ram
    inputs = [recording.input_path(entry.name) for entry in manifest.inputs]
    console = NOWHERE
    if console_fd is not None:
        console = Chardev.file(fd_path(wiring.inherit(console_fd)))
    if gdb_listener is not None:
        gdb = Chardev.socket(wiring.inherit(gdb_listener.fd), listening=True)
    else:
        gdb = Chardev.socket(wiring.gdb_fd)
    whole = recording.complete
    log = recording.log_path if whole else fd_path(_repaired(recording.log(), wiring))
    return Launch(
        program=str(qemu.path),
        inputs=[str(path) for path in inputs],
        vmstate=fd_path(images[IMAGE]),
        log=str(log),
        monitor_fd=wiring.monitor_fd,
        overlays=[fd_path(fd) for name, fd in images.items() if name != IMAGE],
        console=console,
        gdb=gdb,
        ram=RamFile(fd_path(ram.fd), ram.size) if ram else None,
        snapshot=INITIAL if manifest.snapshot else None,
        sandbox=qemu.has_sandbox,
        machine_options=[q.machine_option for q in quirks if q.machine_option],
        globals=[q.global_option for q in quirks if q.global_option],
        plugin=plugin,
    )


def _repaired(log: RrLog, wiring: Wiring) -> int:
    """Make a memory file with what is whole of an unfinished rr log; returns its fd."""
    with tempfile.TemporaryDirectory(prefix="retrograde-") as folder:
        repaired = Path(folder) / "replay.log"
        write_repaired_copy(log, repaired)
        return wiring.memory_copy("replay-log", repaired)
