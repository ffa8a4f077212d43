"""The recorded machine as typed data: the part of the manifest QEMU's argv comes from.

The argv itself is not kept. It is rebuilt (commandline.command) from these structs, in
their order, because the order of devices decides the slots they get. A struct that
exists has passed the allow-list, whether it was built from the user's arguments or
decoded from a stranger's manifest: msgspec runs `__post_init__` in both cases and
reports a ValueError from it as an error of the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from retrograde.recording.allowlist import (
    FILES,
    FLAGS,
    check_id,
    check_properties,
    check_text,
)
from retrograde.recording.diskimage import ImageFormat
from retrograde.recording.topology import SCHEDULED_TARGETS, Topology

InputIndex = Annotated[int, msgspec.Meta(ge=0, lt=1000)]
"""Which of the manifest's inputs a file is, counted from 0."""

Interface = Literal["default", "none", "ide", "scsi", "virtio", "floppy", "sd", "mtd", "pflash"]
"""QEMU's `-drive if=`; "default" is whatever the board has."""

Shift = Annotated[int, msgspec.Meta(ge=0, le=10)] | Literal["auto"]
"""QEMU's `-icount shift`."""

Slot = Annotated[int, msgspec.Meta(ge=0, lt=1000)]

_MODEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_CPU_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PCI_ADDRESS = re.compile(r"[0-9A-Fa-fx.]{1,8}")

# Devices that read and write their medium inside the instruction that asks for it.
_SYNCHRONOUS_INTERFACES = frozenset({"floppy", "sd", "mtd", "pflash"})
_SYNCHRONOUS_DRIVERS = re.compile(
    r"floppy|sd-card(-spi)?|emmc|cfi\.pflash0[12]|spapr-nvram|at24c-eeprom"
)


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file in place of text, by its number among the manifest's inputs."""

    input: InputIndex


class Property(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One key=value of an option; `["romfile", {"input": 3}]` when it is a file."""

    key: str
    value: str | Input


class Flag(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="flag", tag_field="kind"):
    """An option without a value: `-nodefaults`."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in FLAGS:
            raise ValueError(f"-{self.name} is not an option that may be recorded")


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text", tag_field="kind"):
    """An option with one text: `-append "console=ttyS0"`."""

    name: str
    value: str

    def __post_init__(self) -> None:
        check_text(self.name, self.value)


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="file", tag_field="kind"):
    """An option whose value is a file: `-kernel vmlinuz`."""

    name: str
    input: InputIndex

    def __post_init__(self) -> None:
        if self.name not in FILES:
            raise ValueError(f"-{self.name} is not an option that takes a recorded file")


class Properties(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="properties", tag_field="kind"
):
    """An option made of properties: `-device virtio-rng-pci,max-bytes=1024`."""

    name: str
    items: tuple[Property, ...]

    def __post_init__(self) -> None:
        check_properties(
            self.name,
            ((p.key, p.value if isinstance(p.value, str) else None) for p in self.items),
        )

    def get(self, key: str) -> str:
        """Return the text of the last property `key`, "" when there is none."""
        texts = [p.value for p in self.items if p.key == key and isinstance(p.value, str)]
        return texts[-1] if texts else ""


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One image file of a disk."""

    input: InputIndex
    format: ImageFormat


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="disk", tag_field="kind"):
    """A disk or a drive without medium.

    `layers` are its image files, the one the guest sees first and each backed by the
    next; none for an empty drive. They are only ever read: what the guest writes goes
    to an overlay each run gets anew, when the disk is `writable`. `id` is what a
    `-device` with drive= calls it, "" when the interface makes the device.
    """

    id: str
    interface: Interface
    media: Literal["disk", "cdrom"]
    writable: bool
    layers: Annotated[tuple[Layer, ...], msgspec.Meta(max_length=32)] = ()
    index: Slot | None = None
    bus: Slot | None = None
    unit: Slot | None = None

    def __post_init__(self) -> None:
        if self.id:
            check_id(self.id)
        elif self.interface == "none":
            raise ValueError("a disk without interface needs an id")
        if self.writable and not self.layers:
            raise ValueError("an empty drive cannot be written")


class Netdev(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="netdev", tag_field="kind"
):
    """The host side of a network card. In a replay nothing reaches it, nothing leaves it.

    What it was connected to is not kept: packets come from the log. The backend stays
    as far as it is part of the machine's state ("user" saves that of its TCP/IP stack,
    net/slirp.c); all others replay as an unconnected hub.
    """

    id: str
    backend: Literal["user", "isolated"]

    def __post_init__(self) -> None:
        check_id(self.id)


VIRTIO_NET = "virtio-net"

SEMIHOSTING = "semihosting-config"

SEMIHOSTING_TARGETS = frozenset({"arm", "aarch64", "riscv32", "riscv64"})
"""Targets whose guests open files in one of twelve ways (semihosting/arm-compat-semi.c).

Elsewhere a guest gives the flags of open(2), with which Linux before 6.2 lets it empty a file
that it may only read, or the numbers of QEMU's own descriptors (target/xtensa/xtensa-semi.c).
"""

MOST_PORTS = 32
"""Ports that are kept, at most."""


class Nic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="nic", tag_field="kind"):
    """A network card the board places itself (`-nic`, `-net nic`); "" leaves a choice to it."""

    netdev: str
    model: str = ""
    mac: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        check_id(self.netdev)
        for text, pattern in (
            (self.model, _MODEL),
            (self.mac, _MAC),
            (self.address, _PCI_ADDRESS),
        ):
            if text and not pattern.fullmatch(text):
                raise ValueError(f"a network card may not have {text!r}")


class Serial(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="serial", tag_field="kind"
):
    """One serial port. All but "none" exist for the guest; "console" and "text" are kept."""

    role: Literal["console", "text", "null", "none"]


Option = Flag | Text | File | Properties | Disk | Netdev | Nic | Serial


class MachineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine: its target (`x86_64`), its options in order, and its clock.

    `shift` is QEMU's `-icount shift`: an instruction takes 2**shift nanoseconds of the
    guest's time.
    """

    target: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,32}\Z")]
    options: Annotated[tuple[Option, ...], msgspec.Meta(max_length=1000)]
    shift: Shift = 7

    def __post_init__(self) -> None:
        netdevs = [o.id for o in self.options if isinstance(o, Netdev)]
        disks = [disk.id for disk in self.disks() if disk.id]
        if len(set(netdevs)) != len(netdevs) or len(set(disks)) != len(disks):
            raise ValueError("two parts of the machine have the same id")
        if missing := {o.netdev for o in self.options if isinstance(o, Nic)} - set(netdevs):
            raise ValueError(f"no network backend is called {min(missing)}")
        if sum(isinstance(o, Serial) and o.role == "console" for o in self.options) > 1:
            raise ValueError("there are two consoles")
        if len(self.ports()) > MOST_PORTS or len(set(self.ports())) < len(self.ports()):
            raise ValueError("there are too many ports")
        if any(self.properties(SEMIHOSTING)) and self.target not in SEMIHOSTING_TARGETS:
            raise ValueError(f"there is no semihosting for {self.target}")
        if self.topology() is not None:
            self._check_processors()

    def ports(self) -> tuple[str, ...]:
        """Return the names of the ports whose output is kept, the console's first.

        "serial1" is the second serial port. The numbers of ports in ports.log count from 0
        in this order; 0 is the console's also where there is none.
        """
        serials = [o for o in self.options if isinstance(o, Serial)]
        others = [f"serial{n}" for n, port in enumerate(serials) if port.role == "text"]
        others += ["debugcon" for o in self.options if o == Text("debugcon", "kept")]
        others += ["semihosting" for _ in self.properties(SEMIHOSTING)]
        return ("console", *others)

    def topology(self) -> Topology | None:
        """Return how several processors lie together, None where there is one."""
        counts = [option.get("cpus") for option in self.properties("smp")]
        if all(count == "1" for count in counts):
            return None
        if len(counts) > 1:
            raise ValueError("-smp is given twice")
        (smp,) = self.properties("smp")
        return Topology.of((item.key, smp.get(item.key)) for item in smp.items)

    @property
    def vcpus(self) -> int:
        """How many processors the machine begins with."""
        topology = self.topology()
        return topology.cpus if topology else 1

    def processor(self) -> str:
        """Return the device model of the machine's processors."""
        given = [o.value for o in self.options if isinstance(o, Text) and o.name == "cpu"]
        model = given[-1].partition(",")[0] if given else "qemu64"
        suffix = f"-{self.target}-cpu"
        return model if model.endswith(suffix) else model + suffix

    def _check_processors(self) -> None:
        if self.target not in SCHEDULED_TARGETS:
            raise ValueError(f"several processors of {self.target} are not recorded")
        if not _CPU_MODEL.fullmatch(self.processor()):
            raise ValueError(f"{self.processor()!r} is no processor")

    def keeps_ports(self) -> bool:
        """Whether there are ports beside the console that are kept."""
        return len(self.ports()) > 1

    def disks(self) -> Iterator[Disk]:
        """Yield the disks, in order."""
        return (option for option in self.options if isinstance(option, Disk))

    def overlaid(self) -> tuple[Disk, ...]:
        """Return the disks that need an overlay, in the order command.Launch wants them."""
        return tuple(disk for disk in self.disks() if disk.writable)

    def is_synchronous(self, disk: Disk) -> bool:
        """Whether the device on `disk` waits for each access, so that no order is recorded.

        With blkreplay such a device hangs: it holds the lock that the completion it
        waits for needs (floppy and sd-card, QEMU 10.0.2).
        """
        if disk.interface in _SYNCHRONOUS_INTERFACES:
            return True
        if not disk.id:
            return False
        users = [d.get("driver") for d in self.properties("device") if d.get("drive") == disk.id]
        flash = {m.get(key) for m in self.properties("machine") for key in ("pflash0", "pflash1")}
        return disk.id in flash or any(_SYNCHRONOUS_DRIVERS.fullmatch(user) for user in users)

    def properties(self, name: str) -> Iterator[Properties]:
        """Yield all options `name` made of properties: all of `-device`."""
        return (o for o in self.options if isinstance(o, Properties) and o.name == name)

    def models(self) -> Iterator[str]:
        """Yield the names of the device models asked for, as QEMU's options name them."""
        for option in self.options:
            if isinstance(option, Nic):
                # What the board chooses by itself may be this one too.
                yield VIRTIO_NET if option.model in ("", "virtio") else option.model
            elif isinstance(option, Properties) and option.name == "device":
                yield option.get("driver")
            elif isinstance(option, Properties) and option.name == SEMIHOSTING:
                yield "semihosting"

    def inputs(self) -> frozenset[int]:
        """Return the numbers of all inputs the machine needs."""
        return frozenset(self._inputs())

    def _inputs(self) -> Iterator[int]:
        for option in self.options:
            if isinstance(option, File):
                yield option.input
            elif isinstance(option, Disk):
                yield from (layer.input for layer in option.layers)
            elif isinstance(option, Properties):
                for prop in option.items:
                    if isinstance(prop.value, Input):
                        yield prop.value.input
