"""A Debian as users have it: systemd, a disk, a network card, services, many processes.

mmdebstrap installs it out of Debian's own packages, once; it takes root, as chroot does. It
boots from an ext4 file system on a virtio disk, and a unit of ours then has nginx serve and
curl fetch, dd write and read back, a program run four threads and Python make files, round
after round, and powers off.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from retrograde.errors import EnvironmentLacks
from retrograde.guests.cached import cached
from retrograde.guests.guest import Guest

SHIFT = 2
"""The clock it is measured with: at 128 ns an instruction its services time out."""

_SUITE = "bookworm"
_PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus"),
    *("openssh-server", "nginx-light", "curl", "python3", "iproute2", "ifupdown"),
)
_DISK = "1500M"
_SECONDS = 1800

_THREADS = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, SLOTS = 64, TURNS = 20000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *slots[SLOTS];

static void *work(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;
    size_t seen = 0;

    for (int turn = 0; turn < TURNS; turn++) {
        char text[64];
        int slot = rand_r(&state) % SLOTS;

        snprintf(text, sizeof(text), "thread %u turn %d", (unsigned)(size_t)seed, turn);
        pthread_mutex_lock(&lock);
        free(slots[slot]);
        slots[slot] = strdup(text);
        seen += strlen(slots[slot]);
        pthread_mutex_unlock(&lock);
    }
    return (void *)seen;
}

int main(void)
{
    pthread_t threads[THREADS];
    size_t seen = 0;

    for (size_t number = 0; number < THREADS; number++) {
        pthread_create(&threads[number], NULL, work, (void *)(number + 1));
    }
    for (size_t number = 0; number < THREADS; number++) {
        void *result;
        pthread_join(threads[number], &result);
        seen += (size_t)result;
    }
    printf("threads saw %zu bytes\n", seen);
    return 0;
}
"""

_WORK = """#!/bin/sh
exec >/dev/console 2>&1
echo WORK-START
for round in $(seq ROUNDS); do
    echo "round $round"
    dd if=/dev/urandom of=/var/tmp/blob bs=64k count=64 2>/dev/null
    sync
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/var/tmp/blob of=/dev/null bs=4k iflag=direct 2>/dev/null &
    cp /var/tmp/blob /var/www/html/blob
    for n in 1 2 3 4 5; do curl -s http://127.0.0.1/blob | sha256sum; done | sort -u
    /usr/local/bin/threads
    python3 -c '
import json, os, tempfile
with tempfile.TemporaryDirectory() as folder:
    for n in range(200):
        with open(f"{folder}/{n}", "w") as file:
            json.dump({"number": n, "squares": [i * i for i in range(n)]}, file)
    print(sum(os.path.getsize(f"{folder}/{n}") for n in range(200)), "bytes of JSON")
'
    wait
done
ls -lR /etc | md5sum
echo WORK-DONE
systemctl poweroff
"""

_UNIT = """[Unit]
After=multi-user.target nginx.service ssh.service
[Service]
Type=simple
ExecStart=/usr/local/sbin/work
[Install]
WantedBy=graphical.target multi-user.target
"""


def debian_guest(rounds: int = 6) -> Guest:
    """Return the x86_64 Debian that does its work `rounds` times; made on first use.

    One round takes about 1 G instructions after a boot of some 5 G. Raises EnvironmentLacks
    where it cannot be made: not root, no mmdebstrap, no network.
    """
    text = repr((_SUITE, _PACKAGES, _THREADS, _WORK, _UNIT))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    folder = cached(
        f"debian-x86_64-{rounds}-{digest}",
        lambda result, work: _make(result, work, rounds),
        megabytes=4000,
    )
    kernel, initrd, disk = (folder / name for name in ("vmlinuz", "initrd.img", "root.ext4"))
    return Guest(
        name="debian",
        target="x86_64",
        description=f"Debian {_SUITE} on a virtio disk, at work with nginx, Python and threads",
        qemu_args=[
            *("-M", "pc", "-m", "512", "-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "root=/dev/vda rw console=ttyS0 panic=-1"),
            *("-drive", f"if=virtio,format=raw,file={disk}", "-nic", "user,model=virtio-net-pci"),
        ],
        files=(kernel, initrd, disk),
        start="WORK-START",
        done="WORK-DONE",
    )


def _make(result: Path, work: Path, rounds: int) -> None:
    if os.geteuid() != 0:
        raise EnvironmentLacks("Installing a Debian into a folder takes root.", "Run it as root.")
    root, program = work / "root", work / "threads"
    (work / "threads.c").write_text(_THREADS)
    _run("cc", "-O2", "-g", "-static", "-pthread", "-o", program, work / "threads.c")
    names = ",".join(_PACKAGES)
    _run("mmdebstrap", "--variant=apt", f"--include={names}", _SUITE, root)
    _configure(root, program, rounds)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    shutil.copyfile(kernel, result / "vmlinuz")
    shutil.copyfile(initrd, result / "initrd.img")
    shutil.copyfile(program, result / "threads")
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, result / "root.ext4", _DISK)


def _configure(root: Path, program: Path, rounds: int) -> None:
    """Write what makes the installed system ours."""
    etc = root / "etc"
    (etc / "hostname").write_text("debian\n")
    (etc / "fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (etc / "network/interfaces").write_text("auto lo\niface lo inet loopback\n")
    # Its kernel numbers the card by where it stands on the bus.
    network = "[Match]\nName=en*\n[Network]\nDHCP=ipv4\n"
    (etc / "systemd/network").mkdir(parents=True, exist_ok=True)
    (etc / "systemd/network/card.network").write_text(network)
    _install(root / "usr/local/sbin/work", _WORK.replace("ROUNDS", str(rounds)).encode())
    _install(root / "usr/local/bin/threads", program.read_bytes())
    units = etc / "systemd/system"
    (units / "work.service").write_text(_UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "work.service").symlink_to("/etc/systemd/system/work.service")
    networkd = "/lib/systemd/system/systemd-networkd.service"
    (wants / "systemd-networkd.service").symlink_to(networkd)
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer"):
        (units / timer).symlink_to("/dev/null")


def _install(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o755)


def _run(*command: str | Path) -> None:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except FileNotFoundError:
        packages = {"mke2fs": "e2fsprogs", "cc": "gcc libc6-dev"}
        raise EnvironmentLacks(
            f"{words[0]} is not installed.",
            f"Run: apt-get install {packages.get(words[0], words[0])}",
        ) from None
    except subprocess.TimeoutExpired:
        raise EnvironmentLacks(
            f"{words[0]} did not finish in {_SECONDS} seconds.", "Check the network."
        ) from None
    if done.returncode:
        raise EnvironmentLacks(
            f"{words[0]} failed with status {done.returncode}.",
            "Check the network and the space on the disk.",
            done.stderr[-2000:],
        )
