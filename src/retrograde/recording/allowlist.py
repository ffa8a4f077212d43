"""What a machine description may say: the allow-list behind `machinespec`.

A recording may come from a stranger, and QEMU's options can open files, host devices
and sockets, run scripts and load code. Only what is listed here reaches its command
line; files are named by their number among the recording's inputs and never by path.
The user's own arguments pass through the same list when they are recorded.

Every check raises ValueError with a clause that says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FREE_TEXT_LIMIT = 1 << 16
"""Characters of free text (a kernel command line) that are accepted."""

RESERVED = "retrograde"
"""What the ids of the parts we add ourselves begin with; nobody else's may."""

FLAGS = frozenset(
    ("nodefaults", "no-reboot", "usb", "no-hpet", "no-acpi", "no-fd-bootchk", "win2k-hack")
)
"""Options without a value."""

FILES = frozenset(("kernel", "initrd", "dtb", "bios", "option-rom", "shim"))
"""Options whose whole value is a file."""

FREE = re.compile(r"[^\x00]*", re.DOTALL)
ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")

TEXTS = {
    "append": FREE,
    "bios": re.compile(r"none"),  # also a file, see FILES
    "cpu": re.compile(r"(?!host\b)[A-Za-z0-9][A-Za-z0-9 _.,+=@()-]*"),
    "debugcon": re.compile(r"null|kept"),
    "g": re.compile(r"\d+x\d+(x\d+)?"),
    "net": re.compile(r"none"),
    "parallel": re.compile(r"none|null"),
    "prom-env": FREE,
    "seed": re.compile(r"\d+"),
    "usbdevice": re.compile(r"tablet|mouse|keyboard|wacom-tablet"),
    "uuid": re.compile(r"[0-9A-Fa-f-]{36}"),
    "vga": re.compile(r"std|cirrus|vmware|xenfb|tcx|cg3|virtio|none"),
    "watchdog-action": re.compile(r"reset|shutdown|poweroff|inject-nmi|pause|none"),
}
"""Options with one word or free text that names nothing on the host."""

# Nothing that looks like a path, nor like QEMU's `exec:…` and `unix:…`; MAC and PCI
# addresses have colons too, after two characters.
_SIMPLE = re.compile(r"(?![A-Za-z][\w+.-]{2,}:)[A-Za-z0-9 _.,:+=@()-]*")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,+-]*")
_SIZE = re.compile(r"\d+[bBkKmMgGtT]?")

# Keys of machine, device and object properties that lead out of the recording: files,
# descriptors, sockets, host devices, other processes.
_HOST_KEYS = re.compile(
    r"""
      .*(file|path|chardev|fsdev|script|socket|passthr|vhost|iothread|hostdev).*
    | (.*[-_.])?(fds?|sock|exec|cmd|helper|dir|rootdir|evdev|secret|tls|plugin|log|dump)([-_.].*)?
    | host(?!_(mtu|tso4|tso6|ecn|ufo|uso)$).*
    | dumpdtb|firmware|kernel|initrd|dtb|shim|append|accel|smp.*|ifname|tpmdev
    | memory-encryption|confidential-guest-support|display|server
    """,
    re.VERBOSE,
)

_DEVICES = re.compile(
    r"""
      virtio-(blk|net|scsi|rng|balloon|keyboard|mouse|tablet|multitouch|gpu|iommu)
        (-(device|pci|pci-transitional|pci-non-transitional|ccw))?
    | virtio-vga
    # storage
    | ide-(hd|cd|cf) | scsi-(hd|cd) | usb-(storage|bot) | floppy | isa-fdc
    | sd-card(-spi)? | emmc | sdhci-pci | (ich9-)?ahci | (isa|piix3|piix4)-ide
    | lsi(53c8(10|95a))? | megasas(-gen2)? | mptsas1068 | pvscsi | am53c974 | dc390
    | spapr-(vscsi|nvram) | cfi\.pflash0[12]
    # network
    | rtl8139 | ne2k_(isa|pci) | pcnet | tulip | vmxnet3 | i82[58]\w+ | spapr-vlan
    # buses
    | pcie-(root-port|pci-bridge) | ioh3420 | pci-bridge | i82801b11-bridge | pxb(-pcie)?
    | x3130-upstream | xio3130-downstream | spapr-pci-host-bridge
    | (ich9-usb-|piix[34]-usb-)uhci\d? | nec-usb-xhci | qemu-xhci | pci-ohci
    # people
    | usb-(hub|kbd|mouse|tablet|wacom-tablet) | i8042 | vmmouse
    | VGA|bochs-display|cirrus-vga|secondary-vga|vmware-svga|(isa|ati|isa-cirrus)-vga|ramfb
    | AC97 | ES1370 | sb16 | adlib | gus | cs4231a | (ich9-)?intel-hda | hda-(duplex|output|micro)
    # the rest
    | loader | guest-loader | i6300esb | ib700 | diag288 | edu | isa-debug-exit | vmcoreinfo
    | pvpanic(-pci)? | pc-testdev | pci-testdev | vmgenid | intel-iommu | amd-iommu
    | pc-dimm | nvdimm | ipmi-bmc-sim | isa-ipmi-(bt|kcs) | pci-ipmi-(bt|kcs)
    | i2c-(ddc|echo) | tmp105 | ds1338 | at24c-eeprom | smbus-eeprom
    | ctucan_pci | kvaser_pci | pcm3680_pci | mioe3680_pci
    """,
    re.VERBOSE,
)

SOUND_DEVICES = re.compile(r"AC97|ES1370|sb16|adlib|gus|cs4231a|hda-(duplex|output|micro)")
"""Devices that play through the host's sound system unless they get an audiodev."""

_DEVICE_FILES = {"loader": {"file"}, "guest-loader": {"kernel", "initrd"}}

# Strings the guest reads in its SMBIOS tables (hw/smbios/smbios.c).
_SMBIOS_STRINGS = frozenset(
    (
        *("vendor", "version", "date", "release", "manufacturer", "product", "serial", "uuid"),
        *("sku", "family", "asset", "location", "value", "loc_pfx", "sock_pfx", "bank", "part"),
        *("designation", "external_reference", "internal_reference"),
    )
)


@dataclass(frozen=True)
class Rule:
    """What the properties of one option may be.

    `keys` are the keys allowed, None for all that do not lead to the host; `free` the
    keys with free text, `files` those that name an input; `fixed` patterns values must
    match. `lead` is the key QEMU implies for a first value without one.
    """

    lead: str = ""
    keys: re.Pattern[str] | None = None
    free: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    fixed: dict[str, re.Pattern[str]] | None = None


RULES = {
    "machine": Rule("type", fixed={"type": _NAME, "memory-backend": ID}),
    "device": Rule(
        "driver",
        free=frozenset({"serial", "bootargs"}),
        files=frozenset({"romfile"}),
        fixed={"driver": _DEVICES, "id": ID},
    ),
    "global": Rule(
        keys=re.compile("driver|property|value"),
        fixed={"driver": re.compile(r"(?!migration$|tcg|memory-backend)" + _NAME.pattern)},
    ),
    "object": Rule(
        "qom-type",
        fixed={"qom-type": re.compile("rng-builtin|memory-backend-ram|can-bus"), "id": ID},
    ),
    "m": Rule(
        "size",
        re.compile("size|slots|maxmem"),
        fixed={"size": _SIZE, "maxmem": _SIZE, "slots": re.compile(r"\d+")},
    ),
    "smp": Rule(
        "cpus",
        re.compile("cpus|maxcpus|drawers|books|sockets|dies|clusters|modules|cores|threads"),
        fixed={"cpus": re.compile(r"[1-9]\d?")},
    ),
    "boot": Rule("order", re.compile("order|once|menu|strict|reboot-timeout|splash-time")),
    "rtc": Rule(
        keys=re.compile("base|clock|driftfix"),
        fixed={"base": re.compile(r"utc|[0-9T:-]+"), "clock": re.compile("host|rt|vm")},
    ),
    "name": Rule("guest", re.compile("guest"), free=frozenset({"guest"})),
    "smbios": Rule(
        keys=re.compile(r"(?!path$)[a-z_]+"),
        free=_SMBIOS_STRINGS,
        files=frozenset({"file"}),
    ),
    "fw_cfg": Rule(
        "name",
        re.compile("name|string|file"),
        free=frozenset({"string"}),
        files=frozenset({"file"}),
        fixed={"name": re.compile(r"[A-Za-z0-9_./-]+")},
    ),
    "numa": Rule(
        "type", fixed={"type": re.compile("node|dist|cpu|hmat-lb|hmat-cache"), "memdev": ID}
    ),
    "audiodev": Rule(
        "driver", re.compile("driver|id"), fixed={"driver": re.compile("none"), "id": ID}
    ),
    "audio": Rule("driver", re.compile("driver|model"), fixed={"driver": re.compile("none")}),
    "action": Rule(keys=re.compile("reboot|panic|watchdog")),
    # Its guest asks for the host's files; machine.confine keeps it from changing any.
    "semihosting-config": Rule(
        keys=re.compile("enable|userspace|arg"),
        free=frozenset({"arg"}),
        fixed={"enable": re.compile("on"), "userspace": re.compile("on|off")},
    ),
}
"""Options made of key=value properties."""


def check_text(name: str, value: str) -> None:
    """Check an option with one text."""
    pattern = TEXTS.get(name)
    if pattern is None:
        raise ValueError(f"-{name} is not an option that may be recorded")
    if len(value) > FREE_TEXT_LIMIT:
        raise ValueError(f"-{name} is longer than {FREE_TEXT_LIMIT} characters")
    if not pattern.fullmatch(value):
        raise ValueError(f"-{name} may not be {value!r}")
    if name == "cpu" and re.search(r",[+-]?host", value):
        raise ValueError("-cpu takes a property from the host's processor")


def check_properties(name: str, items: Iterable[tuple[str, str | None]]) -> None:
    """Check an option made of properties; a value of None stands for an input file."""
    rule = RULES.get(name)
    if rule is None:
        raise ValueError(f"-{name} is not an option that may be recorded")
    pairs = tuple(items)
    driver = pairs[0][1] if pairs and pairs[0][0] == rule.lead else None
    if name in ("device", "object", "audiodev", "numa") and driver is None:
        raise ValueError(f"-{name} does not begin with its {rule.lead}")
    if name == "global" and [key for key, _ in pairs] != ["driver", "property", "value"]:
        raise ValueError("-global is not a driver, a property and a value")
    if name == "smp" and "cpus" not in dict(pairs):
        raise ValueError("-smp does not say cpus=")
    files = rule.files | _DEVICE_FILES.get(driver or "", set())
    for key, value in pairs:
        if value is None:
            if key not in files:
                raise ValueError(f"-{name} {key} may not be a file")
        else:
            _check_property(name, rule, key, value, is_file=key in files)
    if name == "global":
        _check_key("global", pairs[1][1] or "")


def _check_property(name: str, rule: Rule, key: str, value: str, *, is_file: bool) -> None:
    if is_file:
        # An empty romfile= is how one asks for no ROM at all.
        if value:
            raise ValueError(f"-{name} {key} must be a file of the recording")
        return
    if rule.keys is None:
        _check_key(name, key)
    elif not rule.keys.fullmatch(key):
        raise ValueError(f"-{name} property {key!r} is not known to be safe")
    fixed = (rule.fixed or {}).get(key)
    pattern = fixed or (FREE if key in rule.free else _SIMPLE)
    if len(value) > FREE_TEXT_LIMIT or not pattern.fullmatch(value):
        raise ValueError(f"-{name} {key} may not be {value!r}")
    if key not in rule.free:
        check_not_reserved(value)


def _check_key(option: str, key: str) -> None:
    if not _KEY.fullmatch(key) or _HOST_KEYS.fullmatch(key):
        raise ValueError(f"-{option} property {key!r} could lead out of the recording")


def check_id(text: str) -> None:
    """Check the id of a part."""
    if not ID.fullmatch(text):
        raise ValueError(f"{text!r} is no id that QEMU accepts")
    check_not_reserved(text)


def check_not_reserved(text: str) -> None:
    """Refuse text that could name one of the parts we add to the machine."""
    if text.startswith(RESERVED):
        raise ValueError(f"ids beginning with {RESERVED} are taken")
