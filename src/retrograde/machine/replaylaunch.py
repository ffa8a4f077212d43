"""What a replaying QEMU is started with: private copies of all it writes, inherited."""

from __future__ import annotations

import io
from dataclasses import dataclass
from io import BufferedReader
from typing import Protocol

from retrograde.commandline.command import INITIAL, NOWHERE, Chardev, Launch, RamFile
from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import RecordingError
from retrograde.held import Scratch
from retrograde.machine.process import input_path
from retrograde.machine.qemu import Qemu
from retrograde.machine.quirks import quirks_named
from retrograde.machine.scheduling import replaying_plugin, require_scheduler
from retrograde.machine.wiring import GdbListener, Wiring, fd_path
from retrograde.recording.bundle import IMAGE, LOG, Recording
from retrograde.recording.rrrepair import write_repaired_copy


@dataclass(frozen=True)
class Images:
    """The images of one process: what it reads, and private copies of what it writes.

    `layers` are those of the disks, by number of the input; `private` ones are by name, the
    one with snapshots first, then the disks' overlays.
    """

    layers: dict[int, GuardedImage]
    private: dict[str, GuardedImage]


class Saved(Protocol):
    """Where `Replayer.copy_images` put images: a Folder, or what has checked it. str names it."""

    def open(self, name: str) -> BufferedReader:
        """Open an image for reading; raises OSError."""


def open_images(recording: Recording, wiring: Wiring, saved: Saved | None) -> Images:
    """Open and copy the images of one process; `saved` has some with more snapshots.

    Raises RecordingError for one that would make QEMU open other files.
    """
    machine, inputs = recording.manifest.machine, recording.manifest.inputs
    layers: dict[int, GuardedImage] = {}
    for layer in (layer for disk in machine.disks() for layer in disk.layers):
        entry = inputs[layer.input]
        with recording.open_input(entry) as file:
            name = f"{entry.name} of {recording.name}"
            layers[layer.input] = wiring.layer(file, layer.format, name)
    names = [f"disk{number}.qcow2" for number in range(len(machine.overlaid()))]
    private: dict[str, GuardedImage] = {}
    if saved is not None:
        for name in (IMAGE, *names):
            copy = wiring.memory_copy if name == IMAGE else wiring.disk_copy
            with _open_saved(saved, name) as file:
                private[name] = copy(file, f"{saved}/{name}")
        return Images(layers, private)
    with recording.open_own(IMAGE) as file:
        private[IMAGE] = wiring.memory_copy(file, f"{IMAGE} of {recording.name}")
    for name, disk in zip(names, machine.overlaid(), strict=True):
        snapshot = INITIAL if recording.manifest.snapshot else ""
        private[name] = wiring.overlay(layers[disk.layers[0].input], snapshot)
    return Images(layers, private)


def _open_saved(saved: Saved, name: str) -> BufferedReader:
    try:
        return saved.open(name)
    except OSError as error:
        raise RecordingError(
            f"{saved}/{name} cannot be read: {error.strerror}.",
            f"Remove {saved}; it is made anew.",
        ) from error


def _input_paths(recording: Recording) -> list[str]:
    """Return the paths of the inputs, which QEMU opens by name, once each can be opened."""
    for entry in recording.manifest.inputs:
        recording.open_input(entry).close()
    return [input_path(entry.name) for entry in recording.manifest.inputs]


def lay_out(
    recording: Recording,
    qemu: Qemu,
    wiring: Wiring,
    *,
    images: Images,
    console_fd: int | None,
    gdb_listener: GdbListener | None,
    plugin: str,
) -> Launch:
    """Lay out what QEMU inherits: private copies of all it writes."""
    manifest = recording.manifest
    scheduler = ""
    if manifest.machine.vcpus > 1:
        table = wiring.memory_file("schedule", io.BytesIO(recording.schedule().table()))
        scheduler = replaying_plugin(require_scheduler(qemu.path), manifest.machine.vcpus, table)
    quirks = quirks_named(manifest.quirks)
    ram = wiring.ram
    console = NOWHERE
    if console_fd is not None:
        console = Chardev.file(fd_path(wiring.inherit(console_fd)))
    gdb, is_served = Chardev.socket(wiring.gdb_fd), False
    if gdb_listener is not None:
        gdb, is_served = Chardev.socket(wiring.inherit(gdb_listener.fd), listening=True), True
    return Launch(
        program=str(qemu.path),
        inputs=_input_paths(recording),
        layers=images.layers,
        vmstate=images.private[IMAGE],
        log=fd_path(_log(recording, wiring)),
        monitor_fd=wiring.monitor_fd,
        overlays=[image for name, image in images.private.items() if name != IMAGE],
        console=console,
        gdb=gdb,
        serves_gdb=is_served,
        ram=RamFile(fd_path(ram.fd), ram.size) if ram else None,
        snapshot=INITIAL if manifest.snapshot else None,
        sandbox=qemu.has_sandbox,
        machine_options=[q.machine_option for q in quirks if q.machine_option],
        globals=[q.global_option for q in quirks if q.global_option],
        plugin=plugin,
        scheduler=scheduler,
    )


def _log(recording: Recording, wiring: Wiring) -> int:
    """Return a descriptor of the log, or of a copy with what is whole of an unfinished one."""
    if recording.complete:
        with recording.open_own(LOG) as file:
            return wiring.lend(file)
    with Scratch() as folder:
        repaired = folder / "replay.log"
        write_repaired_copy(recording.log(), repaired)
        with repaired.open("rb") as file:
            return wiring.memory_file("replay-log", file)
