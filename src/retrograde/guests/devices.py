"""Linux guests that use devices, many in one machine, for the matrix of devices.

Debian's kernel loads the drivers and a script uses all it finds: pings over each network card,
reads and writes each disk, fills each screen, plays noise, takes random numbers, feeds watchdogs.
It says DEVICES-DONE when as many were used as the machine has.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograde.errors import UsageError
from retrograde.guests import modular
from retrograde.guests.cached import cached
from retrograde.guests.guest import Guest

_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
word() { sed "s/.*$1=\([^ ]*\).*/\1/" /proc/cmdline; }
echo DEVICES-START
for m in $(cat /$(word group)); do insmod /m/$m.ko 2>/dev/null; done
sleep 1
used() { echo "USED $*"; echo "$1" >>/used; }
net() { n=0; for i in $(ls -d /sys/class/net/eth*); do n=$((n+1)); i=${i##*/}
  ip link set $i up; ip addr add 10.0.$((100+${i#eth})).15/24 dev $i
  a=$(echo $i | sed 's/eth//'); ping -c 3 -W 2 10.0.$((100+a)).2 >/dev/null && used net $i
done; }
disk() { for d in $(ls /sys/block | grep -v -e loop -e fd -e ram); do
  dd if=/dev/$d of=/dev/null bs=16k count=16 iflag=direct 2>/dev/null && used disk $d
  dd if=/dev/zero of=/dev/$d bs=4k count=8 oflag=direct conv=notrunc 2>/dev/null
done; }
screen() { for f in /dev/fb*; do [ -e $f ] &&
  { dd if=/dev/urandom of=$f bs=64k count=8 2>/dev/null; used screen $f; }; done; }
sound() { for d in /dev/dsp*; do [ -e $d ] &&
  timeout 5 dd if=/dev/urandom of=$d bs=4k count=8 2>/dev/null && used sound $d; done; }
input() { for i in $(grep -l . /sys/class/input/input*/name); do
  case $(cat $i) in *QEMU*|*Wacom*) used input $(cat $i);; esac; done; }
random() { [ -e /dev/hwrng ] && dd if=/dev/hwrng bs=16 count=4 2>/dev/null | md5sum &&
  used random; }
dog() { for w in /dev/watchdog[0-9]; do [ -e $w ] && { echo . >$w; sleep 1; echo V >$w; used dog; }
  done; }
can() { for i in $(ls -d /sys/class/net/can*); do i=${i##*/}
  ip link set $i type can bitrate 125000 2>/dev/null; ip link set $i up; used can $i; done; }
bound() { for d in /sys/bus/*/drivers/$1/*; do [ -e $d/driver ] && used bound $1; done; }
for k in $(word use | tr , ' '); do case $k in bound:*) bound ${k#bound:};; *) $k;; esac; done
[ $(wc -l </used) = $(word count) ] && echo DEVICES-DONE
poweroff -f
"""


@dataclass(frozen=True)
class Device:
    """A device as the command line names it, how it is used, and the drivers it takes.

    `words` are what it takes on the command line: {n} is its number, {disk} an image. A `use`
    with a colon is a driver that has to have taken it. None brings nothing that is counted.
    """

    name: str
    words: str
    use: str | None
    drivers: Sequence[str]


def _nic(name: str, *drivers: str) -> Device:
    words = f"-netdev user,id=n{{n}},net=10.0.{{net}}.0/24 -device {name},netdev=n{{n}}"
    return Device(name, words, "net", drivers)


def _hba(name: str, *drivers: str) -> Device:
    disk = "-drive if=none,id=d{n},format=raw,file={disk}"
    words = f"-device {name},id=h{{n}} {disk} -device scsi-hd,bus=h{{n}}.0,drive=d{{n}}"
    return Device(name, words, "disk", (*drivers, "sd_mod"))


def _plain(name: str, use: str | None, *drivers: str) -> Device:
    return Device(name, f"-device {name}", use, drivers)


_HID = ("hid_generic", "usbhid")
_GROUPS: Mapping[str, Sequence[Device]] = {
    "network": (
        _nic("rtl8139", "8139cp"),
        _nic("ne2k_pci", "ne2k_pci"),
        _nic("pcnet", "pcnet32"),
        _nic("tulip", "tulip"),
        _nic("vmxnet3", "vmxnet3"),
        _nic("i82559er", "e100"),
        _nic("virtio-net-pci", "virtio_pci", "virtio_net"),
    ),
    "scsi": (
        _hba("megasas", "megaraid_sas"),
        _hba("pvscsi", "vmw_pvscsi"),
        _hba("am53c974", "am53c974"),
        _hba("virtio-scsi-pci", "virtio_pci", "virtio_scsi"),
    ),
    "usb": (
        Device("piix3-usb-uhci", "-device piix3-usb-uhci,id=u", None, ("uhci_hcd",)),
        Device("usb-kbd", "-device usb-kbd,bus=u.0", "input", _HID),
        Device("usb-mouse", "-device usb-mouse,bus=u.0", "input", _HID),
        Device("pci-ohci", "-device pci-ohci,id=o", None, ("ohci_pci",)),
        Device("usb-tablet", "-device usb-tablet,bus=o.0", "input", _HID),
        Device("qemu-xhci", "-device qemu-xhci,id=x", None, ("xhci_pci",)),
        Device("usb-hub", "-device usb-hub,bus=x.0", None, ()),
        Device(
            "usb-storage",
            "-drive if=none,id=d{n},format=raw,file={disk} -device usb-storage,bus=x.0,drive=d{n}",
            "disk",
            ("usb_storage", "sd_mod"),
        ),
    ),
    "sound": (
        _plain("AC97", "sound", "snd_intel8x0", "snd_pcm_oss"),
        _plain("ES1370", "sound", "snd_ens1370", "snd_pcm_oss"),
    ),
    "screens": (
        _plain("VGA", "screen", "bochs"),
        _plain("secondary-vga", "screen", "bochs"),
        _plain("bochs-display", "screen", "bochs"),
        _plain("cirrus-vga", "screen", "cirrus"),
    ),
    "rest": (
        _plain("virtio-rng-pci", "random", "virtio_pci", "virtio_rng"),
        _plain("virtio-balloon-pci", "bound:virtio_balloon", "virtio_pci", "virtio_balloon"),
        _plain("virtio-keyboard-pci", "input", "virtio_pci", "virtio_input"),
        _plain("virtio-mouse-pci", "input", "virtio_pci", "virtio_input"),
        _plain("virtio-tablet-pci", "input", "virtio_pci", "virtio_input"),
        _plain("i6300esb", "dog", "i6300esb"),
        _plain("pvpanic-pci", "bound:pvpanic-pci", "pvpanic_pci"),
        Device(
            "kvaser_pci",
            "-object can-bus,id=c -device kvaser_pci,canbus=c",
            "bound:kvaser_pci",
            ("kvaser_pci",),
        ),
    ),
}


def device_groups() -> Mapping[str, Sequence[str]]:
    """Return the names of the devices of each group, which share a machine."""
    return {group: [device.name for device in each] for group, each in _GROUPS.items()}


def devices_guest(group: str, names: Sequence[str] = ()) -> Guest:
    """Return the x86_64 guest that uses a group's devices, or those of `names` only.

    Raises UsageError for names there are not, and EnvironmentLacks where the packages cannot
    be had.
    """
    chosen = [device for device in _GROUPS[group] if not names or device.name in names]
    if len(chosen) < len(names):
        known = ", ".join(device.name for device in _GROUPS[group])
        raise UsageError(f"{group} has no such device.", f"It has {known}.")
    folder = cached(f"devices-x86_64-{_identity()}", _make)
    kernel, initrd, disk = (folder / name for name in ("vmlinux", "initrd.cpio", "disk.raw"))
    uses = [device.use for device in chosen if device.use]
    words: list[str] = []
    nets = 0
    for number, device in enumerate(chosen):
        words += device.words.format(n=number, net=100 + nets, disk=disk).split()
        nets += device.use == "net"
    told = f"group={group} use={','.join(Counter(uses))} count={len(uses)}"
    return Guest(
        name=f"devices-{group}",
        target="x86_64",
        description=f"Linux that uses {', '.join(device.name for device in chosen)}",
        qemu_args=[
            *("-M", "pc", "-m", "192", "-nic", "none", "-vga", "none", *words),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", f"console=ttyS0 panic=-1 nolapic_timer net.ifnames=0 {told}"),
        ],
        files=(kernel, initrd, disk),
        start="DEVICES-START",
        done="DEVICES-DONE",
    )


def _identity() -> str:
    return hashlib.sha256(_INIT + repr(_drivers()).encode()).hexdigest()[:8]


def _drivers() -> dict[str, list[str]]:
    return {group: [d for each in _GROUPS[group] for d in each.drivers] for group in _GROUPS}


def _make(result: Path, work: Path) -> None:
    modular.make(result, work, _INIT, _drivers())
    packed = result / "vmlinuz"
    (result / "vmlinux").write_bytes(modular.unpacked_kernel(packed.read_bytes()))
    packed.unlink()
    (result / "disk.raw").write_bytes(bytes(4 << 20))
