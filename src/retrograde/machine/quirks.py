"""Known defects of stock QEMU under record/replay, as data, with their remedies.

A quirk is applied when the machine is recorded and kept in the manifest, because most
remedies change the machine and must then be the same in every replay. Which quirks a
machine needs is asked of the QEMU at hand (does this board have an HPET?), not derived
from its version. `docs/quirks.md` tells the evidence for each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from retrograde.errors import RecordingError, UsageError
from retrograde.isa.isa import X86
from retrograde.machine.qemu import Qemu


@dataclass(frozen=True)
class Quirk:
    """One defect: whom it hits, what it does, what cures it.

    `machine_option` and `global_option` are the remedies that go on the command line. With
    `no_checkpoints` no snapshots are made: going back then takes a new process. `inverts` has a
    snapshot saved again when it does not load as it was saved, `rearms` a timer armed again after
    each load, `through_start` position 0 loaded first on the way back, `early_shutdown` puts the
    finished log in order, `keeps_snapshot` makes one of position 0 that replays begin with.
    `targets` empty means all; `devices` begin the names of the device models it is about, `board`
    those of the boards, `since` is QEMU's first version with the defect, `until` the first
    without. One that is `tried` is found by a trial of each machine. With `unsaved`, a device and
    a field of it, only those QEMUs have the defect whose snapshots leave the field out.
    """

    name: str
    targets: frozenset[str]
    symptom: str
    remedy: str
    machine_option: str = ""
    global_option: str = ""
    no_checkpoints: bool = False
    inverts: bool = False
    rearms: bool = False
    through_start: bool = False
    early_shutdown: bool = False
    keeps_snapshot: bool = False
    tried: bool = False
    devices: tuple[str, ...] = ()
    unsaved: tuple[str, str] | None = None
    board: str = ""
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = ()

    def concerns(self, target: str) -> bool:
        """Whether machines of this target can have the defect."""
        return not self.targets or target in self.targets

    def concerns_device(self, models: Collection[str]) -> bool:
        """Whether it is about one of these device models."""
        return any(model.startswith(self.devices) for model in models)

    def hits(self, qemu: Qemu, machine: str, models: Collection[str]) -> bool:
        """Whether `machine` of this QEMU, with these device models, has what is defective."""
        if self.tried or not self.concerns(qemu.target) or qemu.version < self.since:
            return False
        if self.until and qemu.version >= self.until:
            return False
        if not machine.startswith(self.board):
            return False
        if self.devices and not self.concerns_device(models):
            return False
        if self.unsaved and self.unsaved[1] in qemu.saved_fields(self.unsaved[0]):
            return False
        option = self.machine_option.partition("=")[0]
        return not option or option in qemu.machine_properties(machine)


VAPIC = Quirk(
    "x86-vapic",
    X86,
    "loading a snapshot taken mid-run deadlocks: kvmvapic's post-load waits for the vCPU "
    "while the main loop holds the replay mutex (hw/i386/vapic.c)",
    "the paravirtual APIC page is switched off: -global apic-common.vapic=off",
    global_option="apic-common.vapic=off",
)
HPET = Quirk(
    "x86-hpet",
    X86,
    "a replay continued from a snapshot taken after the guest programmed the HPET stalls",
    "the board gets no HPET: -machine hpet=off",
    machine_option="hpet=off",
)
TOD = Quirk(
    "s390x-tod",
    frozenset({"s390x"}),
    "a replay that begins from a snapshot at position 0 hangs: the TOD clock's timer is "
    "restored as already expired",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
)
ACLINT = Quirk(
    "riscv-aclint",
    frozenset({"riscv32", "riscv64"}),
    "a snapshot loaded mid-run shows another time and misses the next timer interrupt: the "
    "timer's offset and deadline are not in it (vmstate_riscv_mtimer in hw/intc/riscv_aclint.c)",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
    unsaved=("riscv.aclint.mtimer", "timers"),
)
COUNT = Quirk(
    "mips-count",
    frozenset({"mips", "mipsel", "mips64", "mips64el"}),
    "a snapshot loaded mid-run misses the next timer interrupt, and one of a delay slot forgets "
    "the branch: neither is in it (target/mips/system/machine.c)",
    "loading stops and starts the counter by Cause.DC, which arms the timer; no checkpoints are "
    "made in delay slots, and each must prove itself",
    rearms=True,
)
HDECR = Quirk(
    "powernv-timer",
    frozenset({"ppc64"}),
    "a machine that was loaded, from position 0 too, stops for good at skiboot's first timer",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
    board="powernv",
)
CHIPSET = Quirk(
    "alpha-chipset",
    frozenset({"alpha"}),
    "a machine that was loaded strays at once: the chipset, which has the timer, is not in a "
    "snapshot at all (hw/alpha/typhoon.c)",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
)
WINDOW = Quirk(
    "sparc64-window",
    frozenset({"sparc64"}),
    "a machine that was loaded has the registers of another window: which one is current is "
    "loaded, where its registers are is not set anew (target/sparc/machine.c)",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
)
MSR = Quirk(
    "ppc-msr",
    frozenset({"ppc64", "ppc"}),
    "loading a snapshot inverts MSR.ME (cpu_post_load in target/ppc/machine.c)",
    "a checkpoint that does not load as it was saved is saved again, inverted",
    inverts=True,
)
XHCI_KICK = Quirk(
    "xhci-kick",
    frozenset(),
    "an xHCI controller that is loaded arms a timer for each running endpoint, which no log "
    "has, and the replay stalls there (usb_xhci_post_load in hw/usb/hcd-xhci.c)",
    "no checkpoints: going back takes a new process that replays from the start; "
    "piix3-usb-uhci in its place is loaded right",
    no_checkpoints=True,
    devices=("qemu-xhci", "nec-usb-xhci"),
)
ANNOUNCE = Quirk(
    "virtio-net-announce",
    frozenset(),
    "a virtio-net card that is loaded arms a timer to announce itself, which no log has, and "
    "the replay stalls; kept from that, it crashes QEMU at the next load "
    "(hw/net/virtio-net.c)",
    "the card does not offer to announce itself: -global virtio-net-device.guest_announce=off",
    global_option="virtio-net-device.guest_announce=off",
    devices=("virtio-net",),
)
LATE_TIMER = Quirk(
    "x86-late-timer",
    X86,
    "a snapshot of an earlier time that is loaded has the local APIC's timer fire at once: the "
    "APIC is loaded before the clock, and what is armed for the past is run (util/qemu-timer.c)",
    "on the way back the snapshot of position 0, where no timer is armed, is loaded first",
    through_start=True,
    since=(10, 1),
)

EARLY_SHUTDOWN = Quirk(
    "early-shutdown",
    frozenset(),
    "a shutdown is logged before the instructions that ran since the last event, which no replay "
    "reaches then (replay_shutdown_request in replay/replay.c)",
    "the two are exchanged in the finished log, as later versions of QEMU write them",
    early_shutdown=True,
    until=(10, 2),
)
BOOTINFO = Quirk(
    "m68k-bootinfo",
    frozenset({"m68k"}),
    "a machine that is built anew has another byte in RAM, out of QEMU's own memory as it happens "
    "to be: what pads the kernel's command line (BOOTINFOSTR in hw/m68k/bootinfo.h)",
    "a snapshot of position 0 is made when recording, and replays begin with it",
    keeps_snapshot=True,
)
LOADING = Quirk(
    "snapshot-load",
    frozenset(),
    "on some boards QEMU dies when a snapshot is loaded, or the machine that was loaded does "
    "not go on; each machine is tried right after recording",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
    tried=True,
)
HANDLES = Quirk(
    "semihosting-handles",
    frozenset(),
    "a guest that opened a file or its console by semihosting finds other handles, or none, after "
    "a load: which are open is no part of a snapshot (semihosting/guestfd.c)",
    "no checkpoints are made; going back takes a new process that replays from the start",
    no_checkpoints=True,
    devices=("semihosting",),
)

QUIRKS: tuple[Quirk, ...] = (
    LOADING,
    VAPIC,
    HPET,
    TOD,
    ACLINT,
    COUNT,
    HDECR,
    CHIPSET,
    WINDOW,
    MSR,
    ANNOUNCE,
    XHCI_KICK,
    LATE_TIMER,
    EARLY_SHUTDOWN,
    BOOTINFO,
    HANDLES,
)


def quirks_for(
    qemu: Qemu,
    machine: str,
    without: frozenset[str] = frozenset(),
    models: Collection[str] = (),
) -> list[Quirk]:
    """Return the quirks whose remedies a recording of `machine` gets.

    `models` are the names of its device models. `without` names quirks the user wants
    left alone; UsageError for an unknown name.
    """
    if unknown := without - {quirk.name for quirk in QUIRKS}:
        raise UsageError(
            f"There is no quirk called {sorted(unknown)[0]!r}.",
            f"Known are: {', '.join(quirk.name for quirk in QUIRKS)}.",
        )
    return [q for q in QUIRKS if q.name not in without and q.hits(qemu, machine, models)]


def quirks_named(
    names: tuple[str, ...], models: Collection[str] = (), qemu: Qemu | None = None
) -> list[Quirk]:
    """Return the quirks a manifest names.

    With the machine's device `models`, and the `qemu` that replays it, also those that were
    not known when it was recorded, where the remedy leaves the machine as it is. Raises
    RecordingError for names that are not known: without its remedies a machine is another
    one, and its replay would come to a halt with no word about the reason.
    """
    if unknown := set(names) - {quirk.name for quirk in QUIRKS}:
        listed = ", ".join(sorted(unknown)[:3])
        raise RecordingError(
            f"The recording needs remedies that are not known here: {listed}.",
            "Install a newer retrograde, if it was made by one.",
        )
    return [
        quirk
        for quirk in QUIRKS
        if quirk.name in names
        or (quirk.no_checkpoints and quirk.concerns_device(models))
        or (quirk.through_start and qemu is not None and quirk.hits(qemu, "", models))
    ]
