"""What of a QEMU command line cannot be recorded, and why; what is left out of it.

Record/replay reproduces the guest only when everything that reaches it is in the log
or is the same again: files, the virtual clock, recorded serial ports, network packets
and disk completions. What breaks that is refused here with the reason. What concerns
only the host (screens, logs, priorities) is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from retrograde.errors import ArgumentRefused


@dataclass(frozen=True)
class Refusal:
    """Why something cannot be recorded (a clause) and what to do (a sentence)."""

    why: str
    instead: str


def refuse(argument: str, refusal: Refusal) -> NoReturn:
    """Raise the ArgumentRefused that says why `argument` cannot be recorded."""
    raise ArgumentRefused(f"{argument} cannot be recorded: {refusal.why}.", refusal.instead)


SMP = Refusal(
    "QEMU's record/replay runs one processor, and only those of x86_64 can be added as devices",
    "Use -smp 1; races between processors are lost.",
)
CPU_DEVICE = Refusal("processors are made by -smp", "Use -smp N.")
NOT_TCG = Refusal(
    "only TCG counts instructions, no hardware accelerator does",
    "Leave it out, or add -accel tcg.",
)
HOST_CPU = Refusal(
    "it is the host's processor, which TCG does not run", "Use -cpu max or name a model."
)
LOCALTIME = Refusal("the host's time zone is not in the log", "Use -rtc base=utc or a fixed date.")
RR = Refusal("retrograde sets record/replay up itself", "Keep only shift= in -icount.")
CHARDEV = Refusal(
    "only ports made by -serial are recorded, never a -device with a chardev=",
    "Use -serial for it, or leave it out.",
)
SHARED_FOLDER = Refusal(
    "the host's files reach the guest without being recorded",
    "Put the files into a disk image or the initrd.",
)
PASSTHROUGH = Refusal(
    "a real device does not do the same again", "Use a device that QEMU emulates."
)
VHOST = Refusal(
    "vhost moves data behind QEMU's back", "Use the device without vhost, virtio-blk-pci say."
)
RESTORE = Refusal("a recording begins with a machine that starts", "Boot the guest instead.")
HOST_RANDOM = Refusal(
    "the host's random bytes are not in the log", "Use rng-builtin, whose bytes are recorded."
)
CONSOLE_DEVICE = Refusal(
    "virtio consoles are not recorded", "Use -serial and console=ttyS0 (ttyAMA0, hvc0) instead."
)
SEMIHOSTING = Refusal(
    "its guest could change files of this machine",
    "Only that of Arm and RISC-V is recorded; use a serial port instead.",
)
TPM = Refusal("the TPM's answers come from outside QEMU", "Leave it out.")
CONFIG = Refusal("arguments in files are not seen here", "Write the options on the command line.")
PROCESS = Refusal("retrograde runs and watches the process itself", "Leave it out.")
ROLE = Refusal("retrograde loads plugins when it replays", "Leave it out.")
FIRMWARE_DIR = Refusal(
    "whole directories are not kept in a recording", "Name the file itself, with -bios say."
)
TABLES = Refusal("table files are not kept in a recording", "Leave it out.")

NO_STATE = Refusal(
    "QEMU cannot save its state", "Use a virtio device, or ide-hd, or usb-storage instead."
)
# Seen with QEMU 10.0.2: the snapshot of position 0 loads and the replay never advances,
# always with these cards and now and then with EHCI.
STALLING_NIC = Refusal(
    "its replay stalls at the start", "Use virtio-net-pci, rtl8139 or pcnet instead."
)
# virtio_gpu_reset waits for the main loop, which waits for the replay lock of the processor that
# waits: seen with QEMU 10.0.2 as soon as Linux's driver takes the device.
HANGING_GPU = Refusal(
    "QEMU hangs when the guest resets it", "Use -vga std or -device bochs-display instead."
)
STALLING_USB = Refusal("its replay can stall at the start", "Use -device qemu-xhci instead.")

REFUSED_OPTIONS = {
    "localtime": LOCALTIME,
    "virtfs": SHARED_FOLDER,
    "fsdev": SHARED_FOLDER,
    "incoming": RESTORE,
    "loadvm": RESTORE,
    "preconfig": RESTORE,
    "plugin": ROLE,
    "daemonize": PROCESS,
    "chroot": PROCESS,
    "runas": PROCESS,
    "run-with": PROCESS,
    "add-fd": PROCESS,
    "readconfig": CONFIG,
    "set": CONFIG,
    "tpmdev": TPM,
    "iscsi": PASSTHROUGH,
    "acpitable": TABLES,
    "L": FIRMWARE_DIR,
    "xen-domid": NOT_TCG,
    "xen-attach": NOT_TCG,
    "xen-domid-restrict": NOT_TCG,
}

REFUSED_DEVICES: tuple[tuple[re.Pattern[str], Refusal], ...] = tuple(
    (re.compile(pattern), refusal)
    for pattern, refusal in (
        (r"virtio-serial.*|virtconsole|virtserialport", CONSOLE_DEVICE),
        (r"virtio-9p.*|.*-fs(-pci|-device|-ccw)?|usb-mtp", SHARED_FOLDER),
        (r"vhost-.*", VHOST),
        (r"vfio-.*|usb-host|usb-redir|.*passthru.*|scsi-(generic|block)|ccid-.*", PASSTHROUGH),
        (r"virtio-input-host.*|ivshmem.*|x-pci-proxy-dev|xen-.*", PASSTHROUGH),
        (r"(isa|pci|usb)-serial.*|usb-braille|isa-parallel|.*-?vty", CHARDEV),
        (r"sclp(lm)?console|x-terminal3270", CHARDEV),
        (r"tpm-.*", TPM),
        (r".*-cpu(-core)?", CPU_DEVICE),
        (r"nvme.*|usb-(net|uas|audio)|rocker|virtio-sound.*", NO_STATE),
        (r"e1000.*|igb.*", STALLING_NIC),
        (r".*ehci.*", STALLING_USB),
        (r"virtio-(gpu|vga).*", HANGING_GPU),
    )
)

REFUSED_OBJECTS = {
    "rng-egd": HOST_RANDOM,
    "filter-replay": RR,
}

REFUSED_NETDEVS = {
    "vhost-user": VHOST,
    "vhost-vdpa": VHOST,
    "": Refusal(
        "what QEMU offers the guest would depend on the host's network device",
        "Use -netdev user, or socket, stream or dgram.",
    ),
}
"""Why a network backend cannot be recorded; "" for all others but the known good ones."""


@dataclass(frozen=True)
class LeftOut:
    """An option that has no effect on the guest. `note` tells the user what they lose."""

    takes_value: bool
    note: str = ""


NO_MONITOR = "nobody listens there: commands that change the guest would not be in the log"
_NO_SCREEN = "`retrograde record --vnc` shows the guest's screen while recording"
_AFTERWARDS = "debug the recording afterwards, with `retrograde debug`"

HARDWARE = frozenset({"kvm", "hvf", "whpx", "nvmm", "hax", "mshv"})
"""Accelerators: hardware that would run the machine faster. Xen is another machine."""

ONLY_TCG = "only TCG counts instructions, so TCG runs the machine, slower"
NO_WRITES = "a recording never writes to your disk images"
ONE_THREAD = "a recording is made in one thread of QEMU"

LEFT_OUT = {
    "enable-kvm": LeftOut(False, ONLY_TCG),
    "snapshot": LeftOut(False, NO_WRITES),
    "qmp": LeftOut(True, NO_MONITOR),
    "qmp-pretty": LeftOut(True, NO_MONITOR),
    "display": LeftOut(True),
    "vnc": LeftOut(True, _NO_SCREEN),
    "spice": LeftOut(True, _NO_SCREEN),
    "full-screen": LeftOut(False),
    "k": LeftOut(True),
    "echr": LeftOut(True),
    "s": LeftOut(False, _AFTERWARDS),
    "gdb": LeftOut(True, _AFTERWARDS),
    "S": LeftOut(False, f"the machine starts at once: {_AFTERWARDS}"),
    "no-shutdown": LeftOut(False, "the recording ends when the guest shuts down"),
    "sandbox": LeftOut(True),
    "no-user-config": LeftOut(False),
    "pidfile": LeftOut(True, "no file is written"),
    "D": LeftOut(True, "no log is written"),
    "d": LeftOut(True, "no log is written"),
    "dfilter": LeftOut(True),
    "trace": LeftOut(True, "no trace is written"),
    "msg": LeftOut(True),
    "mem-path": LeftOut(True, "guest memory is where retrograde puts it"),
    "mem-prealloc": LeftOut(False),
    "overcommit": LeftOut(True),
    "compat": LeftOut(True),
    "only-migratable": LeftOut(False),
    "enable-sync-profile": LeftOut(False),
    "perfmap": LeftOut(False),
    "jitdump": LeftOut(False),
    "singlestep": LeftOut(False),
    "one-insn-per-tb": LeftOut(False),
    "tb-size": LeftOut(True),
}
