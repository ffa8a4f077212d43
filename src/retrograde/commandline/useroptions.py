"""The options of a user's command line that are made of properties.

Each function takes an option's text and returns its part of the machine, None when
nothing of it concerns the guest. `note` takes sentences about what was left out or
replaced. What cannot be recorded is refused here with its reason; whatever else is not
on the allow-list, the structs themselves refuse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from retrograde.commandline.refusals import (
    CHARDEV,
    HANGING_GPU,
    HOST_CPU,
    LOCALTIME,
    ONE_THREAD,
    REFUSED_DEVICES,
    REFUSED_OBJECTS,
    RR,
    SMP,
    VHOST,
    Refusal,
    refuse,
)
from retrograde.commandline.userfiles import UserFiles
from retrograde.commandline.userjson import json_pairs
from retrograde.errors import ArgumentRefused
from retrograde.recording.keyval import Pairs, split
from retrograde.recording.machinespec import SEMIHOSTING, Input, Properties, Property, Shift, Text
from retrograde.recording.topology import SCHEDULED_TARGETS, Topology

_FILE_KEYS = {
    "device": frozenset({"romfile"}),
    "fw_cfg": frozenset({"file"}),
    "smbios": frozenset({"file"}),
}
_LOADER_KEYS = {"loader": frozenset({"file"}), "guest-loader": frozenset({"kernel", "initrd"})}

# How the host manages memory and what KVM does; the guest does not see it.
_OF_THE_HOST = frozenset({"mem-merge", "dump-guest-core", "kernel-irqchip", "kvm-shadow-mem"})

Note = Callable[[str], None]

_SEMIHOSTING = (
    "the text it writes and its exit status are recorded; the host's files are not to be "
    "changed by it, and of the host's clocks (SYS_CLOCK, SYS_TIME, SYS_ELAPSED) nothing is in the "
    "log: a guest that asks them cannot be replayed"
)

_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def properties(name: str, pairs: Pairs, files: UserFiles | None = None) -> Properties:
    """Return option `name`; values of its file keys become inputs."""
    driver = dict(pairs).get("driver", "") if name == "device" else ""
    keys = _FILE_KEYS.get(name, frozenset()) | _LOADER_KEYS.get(driver, frozenset())
    items = []
    for key, value in pairs:
        if key in keys and value and files is not None:
            items.append(Property(key, Input(files.add(value, f"-{name} {key}="))))
        else:
            items.append(Property(key, value))
    return Properties(name, tuple(items))


def machine(value: str) -> tuple[Properties | None, list[str]]:
    """Return -machine without its accelerators, and these."""
    accelerators: list[str] = []
    rest = []
    for key, text in split(value, "type"):
        if key == "accel":
            accelerators += text.split(":")
        elif key in ("kernel", "initrd", "dtb", "append", "firmware"):
            option = "bios" if key == "firmware" else key
            refuse(f"-machine {key}=", Refusal("it is an option of its own", f"Use -{option}."))
        elif key == "smp" or key.startswith("smp."):
            refuse(f"-machine {key}=", Refusal("it is an option of its own", "Use -smp."))
        elif key.replace("_", "-") not in _OF_THE_HOST:
            rest.append((key, text))
    return (properties("machine", tuple(rest)) if rest else None), accelerators


def accelerator(value: str, note: Note) -> str:
    """Return the name of one -accel."""
    given = dict(split(value, "accel"))
    if given.get("thread") == "multi":
        note(f"-accel thread=multi is left out: {ONE_THREAD}")
    return given.get("accel", "")


def cpu(value: str, note: Note) -> Text:
    """Return -cpu; the host's processor becomes all that TCG can do."""
    model, comma, rest = value.partition(",")
    if re.search(r",[+-]?host", value):
        refuse(f"-cpu {value}", HOST_CPU)
    if model == "host":
        note(f"-cpu {value} becomes max: TCG does not run the host's own processor")
        return Text("cpu", f"max{comma}{rest}")
    return Text("cpu", value)


def smp(value: str, target: str) -> Properties:
    """Return -smp, with all that QEMU would work out where there are several processors."""
    pairs = split(value, "cpus")
    given = dict(pairs)
    counts = [int(text) for _, text in pairs if text.isdecimal()]
    if len(counts) < len(pairs):
        raise ArgumentRefused(f"-smp {value} is not understood.", "Use -smp N.")
    topology = math.prod(int(text) for key, text in pairs if key not in ("cpus", "maxcpus"))
    # Without cpus= QEMU takes maxcpus, or what the topology holds (hw/core/machine-smp.c).
    number = int(given.get("cpus") or given.get("maxcpus") or topology)
    if number != 1:
        if target not in SCHEDULED_TARGETS:
            refuse(f"-smp {value}", SMP)
        try:
            return properties("smp", Topology.of(pairs).pairs())
        except ValueError as error:
            refuse(f"-smp {value}", Refusal(str(error), "Check its numbers, or use -smp N."))
    rest = tuple((key, text) for key, text in pairs if key != "cpus")
    return properties("smp", (("cpus", "1"), *rest))


def memory(value: str) -> tuple[Properties, int | None]:
    """Return -m, and the RAM's size in bytes when it is told."""
    pairs = split(value, "size")
    size = dict(pairs).get("size", "")
    match = re.fullmatch(r"(\d+)([bkmgt]?)", size.lower())
    count = int(match[1]) << _UNITS[match[2] or "m"] if match else None
    return properties("m", pairs), count


def icount(value: str, note: Note) -> Shift | None:
    """Return the shift of the user's -icount, None when it leaves that to us."""
    given = dict(split(value, "shift"))
    if given.keys() & {"rr", "rrfile", "rrsnapshot"}:
        refuse("-icount rr=", RR)
    if given.get("sleep", "on") in ("off", "no", "false"):
        note("-icount sleep=off is left out: a guest that idles takes the time it sleeps")
    if given.get("align", "off") in ("on", "yes", "true"):
        note("-icount align=on is left out: the guest is not held to the host's clock")
    shift = given.get("shift")
    if shift is None:
        return None
    if shift == "auto":
        return "auto"
    if not shift.isdecimal() or int(shift) > 10:
        raise ArgumentRefused(f"-icount shift={shift} is not 0 to 10 or auto.", "Use shift=7.")
    return int(shift)


def rtc(value: str) -> Properties:
    """Return -rtc."""
    pairs = split(value)
    if dict(pairs).get("base") == "localtime":
        refuse("-rtc base=localtime", LOCALTIME)
    return properties("rtc", pairs)


def device(value: str, files: UserFiles, note: Note) -> Properties:
    """Return -device, in QEMU's key=value or JSON syntax."""
    pairs = json_pairs(value) if value.startswith("{") else split(value, "driver")
    pairs = tuple(sorted(pairs, key=lambda pair: pair[0] != "driver"))
    driver = dict(pairs).get("driver", "")
    for pattern, refusal in REFUSED_DEVICES:
        if pattern.fullmatch(driver):
            refuse(f"-device {driver}", refusal)
    for key, text in pairs:
        if key == "chardev":
            refuse(f"-device {driver},chardev={text}", CHARDEV)
        if key.startswith("iothread"):
            note(f"-device {driver},{key}={text} does without: {ONE_THREAD}")
        if key == "vhost" and text != "off":
            refuse(f"-device {driver},vhost={text}", VHOST)
    kept = tuple(pair for pair in pairs if not pair[0].startswith("iothread"))
    return properties("device", kept, files)


def debugcon(value: str) -> tuple[list[Properties], str] | None:
    """Return what `-device isa-debugcon` sets and the character device it names.

    None for another device. Only a debugcon that -debugcon makes is recorded
    (chardev/char.c), and what is set of that is said with -global.
    """
    pairs = json_pairs(value) if value.startswith("{") else split(value, "driver")
    given = dict(pairs)
    if given.get("driver") != "isa-debugcon":
        return None
    chosen = [(key, text) for key, text in pairs if key in ("iobase", "readback")]
    return [global_(f"isa-debugcon.{key}={text}") for key, text in chosen], given.get("chardev", "")


def vga(value: str) -> Text:
    """Return -vga; raises ArgumentRefused for a card that is refused as a -device."""
    if value == "virtio":
        refuse("-vga virtio", HANGING_GPU)
    return Text("vga", value)


def object_(value: str, note: Note) -> Properties | None:
    """Return -object; what the host does with threads of its own is no part of the machine."""
    pairs = json_pairs(value) if value.startswith("{") else split(value, "qom-type")
    pairs = tuple(sorted(pairs, key=lambda pair: pair[0] != "qom-type"))
    kind = dict(pairs).get("qom-type", "")
    if kind in REFUSED_OBJECTS:
        refuse(f"-object {kind}", REFUSED_OBJECTS[kind])
    if kind == "iothread":
        note(f"-object iothread is left out: {ONE_THREAD}")
        return None
    if kind == "filter-dump":
        note("-object filter-dump is left out: the log has the packets that came in")
        return None
    if kind == "rng-random":
        note("-object rng-random becomes rng-builtin, whose bytes are recorded")
        pairs = (("qom-type", "rng-builtin"), ("id", dict(pairs).get("id", "")))
    return properties("object", pairs)


def global_(value: str) -> Properties:
    """Return -global, given as driver.property=value or as three properties."""
    short = re.fullmatch(r"([^.=]+)\.([^=]+)=(.*)", value, re.DOTALL)
    if short and not value.startswith("driver="):
        names = ("driver", "property", "value")
        return properties("global", tuple(zip(names, short.groups(), strict=True)))
    given = dict(split(value))
    return properties(
        "global", tuple((key, given.get(key, "")) for key in ("driver", "property", "value"))
    )


def name(value: str) -> Properties | None:
    """Return -name; what the host calls the process does not matter."""
    pairs = tuple(pair for pair in split(value, "guest") if pair[0] == "guest")
    return properties("name", pairs) if pairs else None


def action(value: str) -> Properties | None:
    """Return -action without what should happen at shutdown: the recording ends then."""
    pairs = tuple(pair for pair in split(value) if pair[0] != "shutdown")
    return properties("action", pairs) if pairs else None


def semihosting(value: str, note: Note) -> tuple[Properties | None, str]:
    """Return -semihosting-config, and the character device it names, "" for none."""
    pairs = split(value, "enable")
    given = dict(pairs)
    if given.get("enable", "on") not in ("on", "yes", "true"):
        return None, ""
    note(f"-semihosting: {_SEMIHOSTING}")
    kept = tuple(pair for pair in pairs if pair[0] in ("userspace", "arg"))
    return properties(SEMIHOSTING, (("enable", "on"), *kept)), given.get("chardev", "")


def sound(option: str, value: str) -> Properties:
    """Return -audiodev or -audio with the host's sound replaced by silence."""
    pairs = split(value, "driver")
    kept = tuple(pair for pair in pairs if pair[0] in ("id", "model"))
    return properties(option, (("driver", "none"), *kept))
