"""QEMU's command line, rebuilt from a machine description.

Record and replay differ in a handful of words, so that both machines are the same by
construction. What belongs to one run (descriptors, private files) comes in a `Launch`;
nothing else here names a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from retrograde.commandline.diskcommand import disk_words, private_drive
from retrograde.commandline.guardedimage import GuardedImage
from retrograde.recording.allowlist import RESERVED, SOUND_DEVICES
from retrograde.recording.keyval import join
from retrograde.recording.machinespec import (
    SEMIHOSTING,
    Disk,
    File,
    Flag,
    Input,
    MachineSpec,
    Netdev,
    Nic,
    Properties,
    Serial,
    Text,
)

VMSTATE_DRIVE = f"{RESERVED}-vmstate"
"""Id of the drive that holds snapshots; `info snapshots` and snapshot-save know it so."""

INITIAL = "init"
"""Name of the snapshot of position 0, where a recording has one (quirks.keeps_snapshot)."""

GDB_ID = f"{RESERVED}-gdb"
"""Id of the character device gdb comes in by; the monitor's `gdbserver` can be told of it."""

RAM_ID = f"{RESERVED}-ram"
"""Id of the memory backend that is the guest's RAM; `info mtree` shows it."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# Hub numbers of unconnected network backends begin here, clear of the hub 0 of `-net`.
_FIRST_HUB = 1000

_SILENCE = f"{RESERVED}-silence"

Words = Iterator[str]


@dataclass(frozen=True)
class Chardev:
    """One of QEMU's character backends: where the console's bytes go or come from."""

    backend: str
    properties: tuple[tuple[str, str], ...] = ()

    @classmethod
    def file(cls, path: str) -> Chardev:
        """Write to the file at `path` (created or truncated); nothing is read."""
        return cls("file", (("path", path),))

    @classmethod
    def stdio(cls, log: str) -> Chardev:
        """Use QEMU's own standard input and output, and copy the output to `log`."""
        return cls("stdio", (("signal", "off"), ("logfile", log)))

    @classmethod
    def socket(cls, fd: int, *, listening: bool = False) -> Chardev:
        """Use an inherited socket: a connected one, or a listening one."""
        serve = (("server", "on"), ("wait", "off")) if listening else ()
        return cls("socket", (("fd", str(fd)), *serve))

    def option(self, name: str) -> tuple[str, str]:
        """Return the words that make it, with id `name`."""
        return "-chardev", join((("backend", self.backend), ("id", name), *self.properties))


NOWHERE = Chardev("null")


@dataclass(frozen=True)
class RamFile:
    """Guest RAM as a shared file of `size` bytes at `path` (`/dev/fd/N`)."""

    path: str
    size: int


@dataclass(frozen=True)
class Launch:
    """What one run of a machine needs beside its description.

    `inputs` are the paths of the manifest's inputs in order, `layers` those that are images of
    disks by their number there, `overlays` fresh qcow2 images, one for each of
    `MachineSpec.overlaid()`, with the virtual size of the disk. `vmstate` is the qcow2 image with
    the machine's snapshots, `log` the rr log. `gdb` is served at once with `serves_gdb`, else when
    the monitor is told to. `snapshot` is taken at position 0 when recording and loaded when
    replaying, where each overlay must hold an (empty) one of that name, because loading wants it
    on every disk; None does neither. `machine_options` and `globals` are quirk remedies
    (`hpet=off`, `apic-common.vapic=off`). `live_netdevs` gives backends, by id, the user's own
    -netdev text, when recording. `ports` are where ports beside the console write, by
    `MachineSpec.ports`. `plugin` is the value of -plugin, `scheduler` that of another one, which
    machines with several processors have; `vnc` is that of -vnc, when recording.
    """

    program: str
    inputs: Sequence[str]
    vmstate: GuardedImage
    log: str
    monitor_fd: int
    layers: Mapping[int, GuardedImage] = field(default_factory=dict)
    overlays: Sequence[GuardedImage] = ()
    console: Chardev = NOWHERE
    ports: Mapping[str, Chardev] = field(default_factory=dict)
    gdb: Chardev | None = None
    serves_gdb: bool = False
    ram: RamFile | None = None
    snapshot: str | None = None
    sandbox: bool = True
    machine_options: Sequence[str] = ()
    globals: Sequence[str] = ()
    live_netdevs: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    scheduler: str = ""
    vnc: str = ""


def record_command(spec: MachineSpec, launch: Launch) -> list[str]:
    """Return the argv that records `spec`; the machine starts at once."""
    # What is typed and pointed at there is in the log (replay_input_event in replay/).
    vnc = ("-vnc", launch.vnc) if launch.vnc else ()
    return [*_machine(spec, launch, "record"), *_common(spec, launch, "record"), *vnc]


def replay_command(spec: MachineSpec, launch: Launch) -> list[str]:
    """Return the argv that replays a recording of `spec`, parked at its start."""
    return [
        *_machine(spec, launch, "replay"),
        *_common(spec, launch, "replay"),
        "-S",
        # The end of the log is the recorded shutdown; stay to be asked about it.
        "-no-shutdown",
    ]


Mode = Literal["record", "replay"]


def _machine(spec: MachineSpec, launch: Launch, mode: Mode) -> Words:
    """Yield the program and the machine itself, the user's options in their order."""
    yield launch.program
    # No configuration files: they are arguments nobody recorded.
    yield "-no-user-config"
    # The first writable image takes the machine's snapshots (block/snapshot.c), so ours
    # stands before any disk of the guest.
    yield from ("-drive", private_drive(VMSTATE_DRIVE, launch.vmstate))
    disks = disk_words(spec, launch.layers, launch.overlays)
    hubs = iter(range(_FIRST_HUB, _FIRST_HUB + len(spec.options)))
    serials = iter(range(len(spec.options)))
    for option in spec.options:
        match option:
            case Disk():
                yield from next(disks)
            case Netdev():
                yield from _netdev(option, next(hubs), launch, mode)
            case Serial():
                yield from _serial(option, next(serials), launch)
            case Text("debugcon", "kept"):
                yield from _debugcon(launch)
            case Properties("smp") if spec.vcpus > 1:
                yield from _processors(spec)
            case Properties(name) if name == SEMIHOSTING:
                yield from _semihosting(option, spec, launch)
            case _:
                yield from _plain(option, launch)
    if not any(isinstance(option, Serial) for option in spec.options):
        yield from ("-serial", "none")


def _common(spec: MachineSpec, launch: Launch, mode: Mode) -> Words:
    """Yield what we add to every machine."""
    monitor = f"{RESERVED}-monitor"
    yield from ("-display", "none", "-accel", "tcg")
    if any(map(_is_audible, spec.properties("device"))):
        yield from ("-audiodev", f"driver=none,id={_SILENCE}")
    yield from Chardev.socket(launch.monitor_fd).option(monitor)
    yield from ("-qmp", f"chardev:{monitor}")
    if launch.gdb is not None:
        yield from launch.gdb.option(GDB_ID)
        if launch.serves_gdb:
            yield from ("-gdb", f"chardev:{GDB_ID}")
    if launch.ram is not None:
        yield from _ram(launch.ram)
    for remedy in launch.machine_options:
        yield from ("-machine", remedy)
    for remedy in launch.globals:
        yield from ("-global", remedy)
    snapshot = (("rrsnapshot", launch.snapshot),) if launch.snapshot else ()
    icount = (("shift", str(spec.shift)), ("rr", mode), ("rrfile", launch.log), *snapshot)
    yield from ("-icount", join(icount))
    if launch.sandbox:
        yield from ("-sandbox", SANDBOX)
    for plugin in filter(None, (launch.scheduler, launch.plugin)):
        yield from ("-plugin", plugin)


def _plain(option: Flag | Text | File | Properties | Nic, launch: Launch) -> Words:
    match option:
        case Flag(name):
            yield f"-{name}"
        case Text(name, value):
            yield from (f"-{name}", value)
        case File(name, number):
            yield from (f"-{name}", launch.inputs[number])
        case Properties(name, items):
            pairs = [(item.key, _value(item.value, launch)) for item in items]
            if name == "device" and _is_audible(option):
                pairs.append(("audiodev", _SILENCE))
            yield from (f"-{name}", join(pairs))
        case Nic(netdev, model, mac, address):
            given = (("model", model), ("macaddr", mac), ("addr", address))
            chosen = [(key, value) for key, value in given if value]
            yield from ("-net", f"nic,{join((('netdev', netdev), *chosen))}")
        case _:
            assert_never(option)


def _processors(spec: MachineSpec) -> Words:
    """Yield one processor, which is all that QEMU records with, and the others as devices."""
    topology = spec.topology()
    assert topology is not None
    one = dataclasses.replace(topology, cpus=1)
    yield from ("-smp", join(one.pairs()))
    for number in range(1, topology.cpus):
        yield from ("-device", join((("driver", spec.processor()), *topology.place(number))))


def _is_audible(option: Properties) -> bool:
    """Whether a device would go to the host's sound system by default."""
    return bool(SOUND_DEVICES.fullmatch(option.get("driver"))) and not option.get("audiodev")


def _value(value: str | Input, launch: Launch) -> str:
    return launch.inputs[value.input] if isinstance(value, Input) else value


def _serial(serial: Serial, number: int, launch: Launch) -> Words:
    # Only ports made by options of their own are recorded (chardev/char.c), never -device ones.
    if serial.role == "console":
        name = f"{RESERVED}-console"
        yield from launch.console.option(name)
        yield from ("-serial", f"chardev:{name}")
    elif serial.role == "text":
        name = f"{RESERVED}-serial{number}"
        yield from launch.ports.get(f"serial{number}", NOWHERE).option(name)
        yield from ("-serial", f"chardev:{name}")
    else:
        yield from ("-serial", serial.role)


def _debugcon(launch: Launch) -> Words:
    # The device that -debugcon makes looks for a backend of this name (system/vl.c).
    yield from launch.ports.get("debugcon", NOWHERE).option("debugcon")
    yield from ("-debugcon", "chardev:debugcon")


def _semihosting(given: Properties, spec: MachineSpec, launch: Launch) -> Words:
    """Yield semihosting on a backend that is recorded, because -parallel was named first.

    No board with semihosting has a second parallel port that would take it.
    """
    name = f"{RESERVED}-semihosting"
    texts = (option for option in spec.options if isinstance(option, Text))
    if not any(text.name == "parallel" for text in texts):
        yield from ("-parallel", "null")
    yield from launch.ports.get("semihosting", NOWHERE).option(name)
    yield from ("-parallel", f"chardev:{name}")
    # With "auto" a debugger that is connected would be asked, and a replay has one.
    fixed = (("target", "native"), ("chardev", name))
    pairs = [(item.key, _value(item.value, launch)) for item in given.items]
    yield from (f"-{SEMIHOSTING}", join((*pairs, *fixed)))


def _netdev(netdev: Netdev, hub: int, launch: Launch, mode: Mode) -> Words:
    live = launch.live_netdevs.get(netdev.id) if mode == "record" else None
    if live is not None:
        yield from ("-netdev", live)
    elif netdev.backend == "user":
        yield from ("-netdev", f"user,id={netdev.id},restrict=on")
    else:
        yield from ("-netdev", f"hubport,id={netdev.id},hubid={hub}")
    yield from ("-object", f"filter-replay,id={RESERVED}-replay-{netdev.id},netdev={netdev.id}")


def _ram(ram: RamFile) -> Words:
    backend = (("id", RAM_ID), ("share", "on"), ("mem-path", ram.path), ("size", f"{ram.size}B"))
    yield from ("-object", f"memory-backend-file,{join(backend)}")
    yield from ("-machine", f"memory-backend={RAM_ID}")
