"""Linux guests whose disks are never idle, one for each kind of disk controller.

Debian's kernel with the controllers' modules and busybox: on every disk three readers and a
writer go round without the page cache for some seconds, so that at nearly all positions
requests are in flight. A ping over the network card and a timer run beside them.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

from retrograde.errors import EnvironmentLacks
from retrograde.guests import modular
from retrograde.guests.cached import cached
from retrograde.guests.guest import Guest

_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "ata_piix", "ahci"),
    *("uhci_hcd", "usb_storage", "sd_mod", "sdhci_pci", "mmc_block"),
    *("crc32c_generic", "crct10dif_generic"),
)
_DISK_BYTES = 16 << 20

_INIT = rb"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /modules); do insmod /m/$m.ko 2>/dev/null; done
disks() { ls /sys/block | grep -v -e loop -e sr -e fd; }
want=$(sed 's/.*disks=\([0-9]*\).*/\1/' /proc/cmdline)
i=0; while [ $(disks | wc -l) -lt $want ] && [ $i -lt 60 ]; do sleep 0.1; i=$((i+1)); done
echo DISKS-START $(disks)
if ip link set eth0 up 2>/dev/null; then
  ip addr add 10.0.2.15/24 dev eth0
  ( while [ ! -e /stop ]; do ping -c 1 -W 1 10.0.2.2 >/dev/null; sleep 0.05; done ) &
fi
for d in $(disks); do
  for k in 1 2 3; do
    ( j=0; while [ ! -e /stop ]; do
        dd if=/dev/$d of=/dev/null bs=${k}6k count=20 skip=$((j*7%100)) iflag=direct 2>/dev/null
        j=$((j+k)); done ) &
  done
  ( j=0; while [ ! -e /stop ]; do
      dd if=/dev/zero of=/dev/$d bs=4k count=8 seek=$((j%200+1000)) oflag=direct conv=notrunc \
        2>/dev/null
      j=$((j+13)); done ) &
done
sleep 2
touch /stop; wait
echo DISKS-DONE
poweroff -f
"""

_NIC = ("-nic", "user,model=virtio-net-pci")
_NO_NIC = ("-nic", "none")
_CONTROLLERS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "virtio-blk": (
        2,
        (
            *("-M", "pc", *_NIC, "-drive", "if=virtio,format=raw,file={raw}"),
            *("-drive", "if=virtio,format=qcow2,file={qcow2}"),
        ),
    ),
    "virtio-scsi": (
        2,
        (
            *("-M", "q35", *_NIC, "-device", "virtio-scsi-pci"),
            *("-drive", "if=none,id=s0,format=raw,file={raw}", "-device", "scsi-hd,drive=s0"),
            *("-drive", "if=none,id=s1,format=qcow2,file={qcow2}", "-device", "scsi-hd,drive=s1"),
        ),
    ),
    "ide": (1, ("-M", "pc", *_NO_NIC, "-drive", "if=ide,format=raw,file={raw}")),
    "ahci": (
        2,
        (
            *("-M", "q35", *_NO_NIC, "-drive", "if=ide,format=raw,file={raw}"),
            *("-drive", "if=ide,format=qcow2,file={qcow2}"),
        ),
    ),
    "usb": (
        1,
        (
            *("-M", "pc", *_NO_NIC, "-device", "piix3-usb-uhci"),
            *("-drive", "if=none,id=u0,format=raw,file={raw}"),
            *("-device", "usb-storage,drive=u0"),
        ),
    ),
    "sd": (
        1,
        (
            *("-M", "pc", *_NO_NIC, "-device", "sdhci-pci"),
            *("-drive", "if=none,id=c0,format=raw,file={raw}", "-device", "sd-card,drive=c0"),
        ),
    ),
}


def diskload_names() -> tuple[str, ...]:
    """Return the controllers for which there is a guest."""
    return tuple(_CONTROLLERS)


def diskload_guest(controller: str) -> Guest:
    """Return the x86_64 guest that keeps disks on `controller` in use; fetched on first use.

    Raises EnvironmentLacks where the packages or qemu-img cannot be had.
    """
    disks, words = _CONTROLLERS[controller]
    folder = cached(f"diskload-x86_64-{hashlib.sha256(_INIT).hexdigest()[:8]}", _make)
    kernel, initrd = folder / "vmlinuz", folder / "initrd.cpio"
    images = {"raw": folder / "disk.raw", "qcow2": folder / "disk.qcow2"}
    return Guest(
        name=f"diskload-{controller}",
        target="x86_64",
        description=f"Linux with {disks} disks on {controller} in constant use",
        qemu_args=[
            *(word.format(**images) for word in words),
            *("-m", "192", "-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", f"console=ttyS0 panic=-1 quiet disks={disks}"),
        ],
        files=(kernel, initrd, *images.values()),
        start="DISKS-START",
        done="DISKS-DONE",
    )


def _make(result: Path, work: Path) -> None:
    modular.make(result, work, _INIT, {"modules": _MODULES})
    contents = random.Random(7).randbytes(_DISK_BYTES)  # noqa: S311 - something to read
    raw, qcow2 = result / "disk.raw", result / "disk.qcow2"
    raw.write_bytes(contents)
    _convert(raw, qcow2)


def _convert(raw: Path, qcow2: Path) -> None:
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise EnvironmentLacks(
            "qemu-img cannot make a disk image.", "Run: apt-get install qemu-utils", str(error)
        ) from error
