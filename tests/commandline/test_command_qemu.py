"""Command lines that real QEMU takes, records and replays."""

import os
import shlex
import socket
import subprocess

import pytest

from retrograde.commandline.arguments import parse_arguments
from retrograde.commandline.command import Chardev, Launch, RamFile, record_command, replay_command
from retrograde.commandline.guardedimage import GuardedImage
from retrograde.machine.image import create_image
from retrograde.machine.wiring import Wiring
from tests.machine.bootdisk import CONSOLE, write_boot_disk

pytestmark = pytest.mark.qemu

RUN_SECONDS = 60
PROGRAM = "qemu-system-x86_64"
QUIT = b'{"execute":"qmp_capabilities"}{"execute":"quit"}'
FIRMWARE = "/usr/share/seabios/bios-256k.bin"


class Bench:
    """Runs one machine, first recording and then replaying, in a folder of its own."""

    def __init__(self, folder, line):
        self.folder = folder
        self.machine = parse_arguments(shlex.split(line), "x86_64")
        self.wiring = Wiring(None)
        with (folder / "machine.qcow2").open("w+b") as image:
            create_image(image.fileno())
            self.vmstate = GuardedImage(self.wiring.lend(image), "qcow2", "machine.qcow2")
        self.layers = {}
        for layer in (one for disk in self.machine.spec.disks() for one in disk.layers):
            with self.machine.files[layer.input].open("rb") as file:
                self.layers[layer.input] = self.wiring.layer(file, layer.format, "a layer")

    def run(self, build, *, parked=False, **changes):
        """Run it to its end, or until it quits when `parked`; returns what the console got."""
        replays = build is replay_command
        mode = "replay" if replays else "record"
        ours, theirs = socket.socketpair()
        ram = os.memfd_create("ram")
        size = self.machine.ram_bytes or 128 << 20
        os.ftruncate(ram, size)
        launch = Launch(
            PROGRAM,
            [str(path) for path in self.machine.files],
            self.vmstate,
            str(self.folder / "replay.log"),
            theirs.fileno(),
            self.layers,
            [
                self.wiring.overlay(self.layers[disk.layers[0].input], "init" if replays else "")
                for disk in self.machine.spec.overlaid()
            ],
            Chardev.file(str(self.folder / f"{mode}.console")),
            ram=RamFile(f"/dev/fd/{ram}", size),
            machine_options=["hpet=off"],
            globals=["apic-common.vapic=off"],
            live_netdevs=self.machine.live_netdevs,
            **changes,
        )
        argv = build(self.machine.spec, launch)
        if replays and not parked:
            # Run at once and end with the log, as the recording did.
            argv = [word for word in argv if word not in ("-S", "-no-shutdown")]
        with ours, theirs:
            process = subprocess.Popen(
                argv,
                pass_fds=(theirs.fileno(), ram, *self.wiring.pass_fds),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            os.close(ram)
            try:
                if parked:
                    ours.sendall(QUIT)
                _, stderr = process.communicate(timeout=RUN_SECONDS)
            finally:
                process.kill()
                process.wait()
        assert process.returncode == 0, stderr.decode()
        console = self.folder / f"{mode}.console"
        return console.read_bytes() if console.exists() else b""


@pytest.fixture
def disk(tmp_path):
    return write_boot_disk(tmp_path / "disk.img")


@pytest.fixture
def benches(tmp_path):
    made = []

    def make(line):
        made.append(Bench(tmp_path, line))
        return made[-1]

    yield make
    for bench in made:
        bench.wiring.close()


@pytest.mark.parametrize(
    "line",
    [
        "-hda DISK",
        "-fda DISK",
        "-drive file=DISK,format=raw,if=virtio -netdev user,id=n -device virtio-net-pci,netdev=n",
        "-M q35 -drive file=DISK,if=none,id=d -device ide-hd,drive=d -nic user,model=rtl8139",
        "-blockdev file,node-name=f,filename=DISK -blockdev raw,node-name=d,file=f "
        "-device virtio-scsi-pci -device scsi-hd,drive=d -nodefaults -serial null -serial stdio",
        f"-drive if=pflash,format=raw,file={FIRMWARE} -hda DISK",
    ],
)
def test_guest_writes_replay_and_the_users_image_stays(line, disk, benches):
    before = disk.read_bytes()
    bench = benches(line.replace("DISK", str(disk)))
    recorded = bench.run(record_command)
    if "-serial null" not in line:  # the guest prints to the first port only
        assert recorded == CONSOLE
    assert bench.run(replay_command) == recorded
    assert disk.read_bytes() == before


def test_read_only_disk_and_backing_chain(disk, tmp_path, benches):
    top = tmp_path / "top.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", top]
    subprocess.run(words, check=True)
    assert parse_arguments(["-hda", str(top)], "x86_64").files == (top, disk)
    bench = benches(f"-drive file={top},if=virtio -cdrom {disk}")
    assert bench.run(record_command) == CONSOLE
    assert bench.run(replay_command) == CONSOLE


GOLDEN = {
    "linux": "-m 64 -kernel KERNEL -append console=ttyS0 -nographic -no-reboot",
    "kunit": "-nodefaults -m 64 -kernel KERNEL -append a -no-reboot -nographic -accel kvm "
    "-accel tcg -serial stdio",
    "firmware": f"-bios {FIRMWARE} -M pc -nic none -rtc base=utc,clock=host -boot order=c,menu=off",
    "devices": "-M q35 -vga none -device VGA,romfile= -device virtio-rng-pci -device qemu-xhci "
    "-device usb-kbd -device AC97 -device pvpanic -smp 1,sockets=1 -uuid "
    "12345678-1234-1234-1234-123456789abc -name guest=x,process=y -smbios type=1,serial=a/b "
    f"-fw_cfg opt/a/b,string=c -fw_cfg opt/d,file={FIRMWARE} -seed 1 -object rng-builtin,id=r "
    "-cpu max,+avx2 -audiodev pa,id=s -action panic=pause -global ICH9-LPC.disable_s3=1",
    "slots": "-drive if=ide,media=cdrom,index=2 -debugcon stdio -parallel none -serial none",
    "networks": "-netdev user,id=a -device virtio-net-pci,netdev=a,mac=52:54:00:00:00:01 "
    "-netdev dgram,id=b,local.type=inet,local.host=127.0.0.1,local.port=0,remote.type=inet,"
    "remote.host=127.0.0.1,remote.port=9 -device pcnet,netdev=b",
    "loader": f"-device loader,file={FIRMWARE},addr=0x1000000,force-raw=on -usb",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_qemu_takes_the_rebuilt_command_line(name, tmp_path, benches):
    """Recorded for a moment, parked at the start of the replay, then told to quit."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(_multiboot_kernel())
    bench = benches(GOLDEN[name].replace("KERNEL", str(kernel)))
    bench.run(record_command, parked=True)
    bench.run(replay_command, parked=True)


def _multiboot_kernel() -> bytes:
    """Return the smallest file that QEMU takes for -kernel: a multiboot header and a halt."""
    magic, flags, base = 0x1BADB002, 1 << 16, 0x100000
    checksum = -(magic + flags) & 0xFFFFFFFF
    # header address, load address, load end, bss end, entry (Multiboot 0.6.96, 3.1.1)
    words = (magic, flags, checksum, base, base, base + 40, base + 40, base + 32)
    return b"".join(word.to_bytes(4, "little") for word in words) + b"\xf4\xeb\xfd".ljust(8, b"\0")
