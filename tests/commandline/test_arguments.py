import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from retrograde.commandline.arguments import asks_only, parse_arguments
from retrograde.commandline.fatfolder import FatFolder
from retrograde.errors import ArgumentRefused
from retrograde.recording.machinespec import (
    Disk,
    File,
    Flag,
    Input,
    Layer,
    Netdev,
    Nic,
    Properties,
    Property,
    Serial,
    Text,
)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """The files that the command lines of this module name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("bzImage", "initrd.img", "disk.img", "vars.fd", "a,b.rom"):
        Path(name).write_bytes(bytes(512))
    return tmp_path


def parse(line, target="x86_64", **options):
    return parse_arguments(shlex.split(line), target, **options)


def props(option, /, **items):
    return Properties(option, tuple(Property(k.replace("_", "-"), v) for k, v in items.items()))


CONSOLE = Serial("console")
NO_NET = Text("net", "none")


def test_linux_boot(files):
    machine = parse("-m 128 -kernel bzImage -initrd initrd.img -append 'a=/b,c' -no-reboot")
    assert machine.spec.options == (
        props("m", size="128"),
        File("kernel", 0),
        File("initrd", 1),
        Text("append", "a=/b,c"),
        Flag("no-reboot"),
        NO_NET,
        CONSOLE,
    )
    assert machine.files == (files / "bzImage", files / "initrd.img")
    assert (machine.ram_bytes, machine.board, machine.spec.shift) == (128 << 20, "", 4)
    assert machine.notes == ()


def test_kunit_falls_back_to_tcg():
    line = (
        "-nodefaults -m 1024 -kernel bzImage -append 'kunit.enable=1 console=ttyS0' -no-reboot "
        "-nographic -accel kvm -accel hvf -accel tcg -serial stdio"
    )
    assert parse(line).spec.options == (
        Flag("nodefaults"),
        props("m", size="1024"),
        File("kernel", 0),
        Text("append", "kunit.enable=1 console=ttyS0"),
        Flag("no-reboot"),
        props("machine", graphics="off"),
        NO_NET,
        CONSOLE,
    )


def test_cloud_image_with_virtio_disk_and_network():
    machine = parse(
        "-M q35,accel=kvm:tcg -cpu max -smp 1 -m 2G -nographic "
        "-drive file=disk.img,format=raw,if=virtio,cache=unsafe,discard=unmap "
        "-netdev user,id=net0,hostfwd=tcp::2222-:22 -device virtio-net-pci,netdev=net0"
    )
    assert machine.spec.options == (
        props("machine", type="q35"),
        Text("cpu", "max"),
        props("smp", cpus="1"),
        props("m", size="2G"),
        props("machine", graphics="off"),
        Disk("", "virtio", "disk", True, (Layer(0, "raw"),)),
        props("device", driver="virtio-net-pci", netdev="net0"),
        Netdev("net0", "user"),
        CONSOLE,
    )
    assert machine.live_netdevs == {"net0": "type=user,id=net0,hostfwd=tcp::2222-:22"}
    assert machine.board == "q35"
    assert any("disks" in note for note in machine.notes)


@pytest.mark.parametrize(
    ("target", "line", "board"),
    [
        ("aarch64", "-M virt -cpu cortex-a57 -kernel bzImage -nographic", "virt"),
        ("ppc64", "-M pseries,cap-cfpc=broken -m 512 -vga none -serial mon:stdio", "pseries"),
        ("x86_64", "-M microvm,x-option-roms=off,pit=off -bios a,b.rom -nodefaults", "microvm"),
        ("riscv64", "--machine virt --bios vars.fd --nographic", "virt"),
        ("s390x", "-machine s390-ccw-virtio -kernel bzImage", "s390-ccw-virtio"),
    ],
)
def test_other_boards(target, line, board):
    assert parse(line, target).board == board


def test_q35_with_its_own_disk_device():
    options = parse(
        "-M q35 -drive id=d0,if=none,file=disk.img -device ide-hd,drive=d0"
    ).spec.options
    assert Disk("d0", "none", "disk", True, (Layer(0, "raw"),)) in options


@pytest.mark.parametrize(
    ("line", "disk"),
    [
        ("disk.img", Disk("", "default", "disk", True, (Layer(0, "raw"),), 0)),
        ("-hdb disk.img", Disk("", "default", "disk", True, (Layer(0, "raw"),), 1)),
        ("-cdrom disk.img", Disk("", "default", "cdrom", False, (Layer(0, "raw"),), 2)),
        ("-fda disk.img", Disk("", "floppy", "disk", True, (Layer(0, "raw"),), 0)),
        ("-sd disk.img", Disk("", "sd", "disk", True, (Layer(0, "raw"),))),
        (
            "-drive if=pflash,format=raw,readonly=on,file=vars.fd,unit=1",
            Disk("", "pflash", "disk", False, (Layer(0, "raw"),), unit=1),
        ),
        ("-drive if=ide,media=cdrom,index=2", Disk("", "ide", "cdrom", False, (), 2)),
        (
            "-blockdev driver=raw,node-name=d,file.driver=file,file.filename=disk.img",
            Disk("d", "none", "disk", True, (Layer(0, "raw"),)),
        ),
        (
            "-blockdev file,node-name=f,filename=disk.img "
            "-blockdev raw,node-name=d,file=f,read-only=on",
            Disk("d", "none", "disk", False, (Layer(0, "raw"),)),
        ),
    ],
)
def test_ways_to_give_a_disk(line, disk):
    assert list(parse(line).spec.disks()) == [disk]


@pytest.mark.parametrize(
    ("line", "floppy", "bits_32"),
    [
        ("-drive file=fat:rw:esp,format=raw", False, False),
        ("-drive format=vvfat,file=fat:32:esp", False, True),
        ("-hda fat:esp", False, False),
        ("-drive file.driver=vvfat,file.dir=esp,file.rw=on,if=virtio", False, False),
        ("-drive if=floppy,file=fat:floppy:rw:esp", True, False),
    ],
)
def test_a_folder_becomes_an_image(files, line, floppy, bits_32):
    (files / "esp").mkdir()
    machine = parse(line)
    assert machine.folders == {0: FatFolder(files / "esp", floppy, bits_32)}
    assert machine.files == (files / "esp.img",)
    (disk,) = machine.spec.disks()
    assert disk.layers == (Layer(0, "raw"),)
    assert any("nothing is written back" in note for note in machine.notes)


def test_blockdev_and_device_in_json():
    node = {"driver": "raw", "node-name": "d", "file": {"driver": "file", "filename": "disk.img"}}
    device = {"id": "v", "driver": "virtio-blk-pci", "drive": "d", "bootindex": 1, "scsi": False}
    spec = parse_arguments(
        ["-blockdev", json.dumps(node), "-device", json.dumps(device)], "x86_64"
    ).spec
    assert [d.id for d in spec.disks()] == ["d"]
    assert spec.options[0] == props(
        "device", driver="virtio-blk-pci", id="v", drive="d", bootindex="1", scsi="off"
    )


@pytest.mark.qemu
def test_images_behind_images_are_inputs(files):
    def create(*words):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)

    create("-b", "disk.img", "-F", "raw", "mid.qcow2")
    create("-b", "mid.qcow2", "-F", "qcow2", "top.qcow2")
    machine = parse("-hda top.qcow2")
    assert next(machine.spec.disks()).layers == (
        Layer(0, "qcow2"),
        Layer(1, "qcow2"),
        Layer(2, "raw"),
    )
    assert [path.name for path in machine.files] == ["top.qcow2", "mid.qcow2", "disk.img"]


def test_a_raw_image_that_a_guest_made_look_like_qcow2_stays_raw(files):
    header = b"QFI\xfb" + (3).to_bytes(4, "big") + (104).to_bytes(8, "big")
    (files / "disk.img").write_bytes(header + (11).to_bytes(4, "big") + bytes(84) + b"/etc/passwd")
    machine = parse("-drive file=disk.img,format=raw")
    assert machine.files == (files / "disk.img",)


def test_files_in_properties_are_inputs_and_named_once(files):
    machine = parse(
        "-device virtio-rng-pci,romfile= -device VGA,romfile=a,,b.rom "
        "-device loader,file=bzImage,addr=0x100000,force-raw=on -kernel bzImage "
        "-fw_cfg opt/org.test/x,file=vars.fd -fw_cfg name=opt/y,string=a,,b -smbios file=vars.fd"
    )
    assert [path.name for path in machine.files] == ["a,b.rom", "bzImage", "vars.fd"]
    assert machine.spec.options[:7] == (
        props("device", driver="virtio-rng-pci", romfile=""),
        props("device", driver="VGA", romfile=Input(0)),
        props("device", driver="loader", file=Input(1), addr="0x100000", force_raw="on"),
        File("kernel", 1),
        props("fw_cfg", name="opt/org.test/x", file=Input(2)),
        props("fw_cfg", name="opt/y", string="a,b"),
        props("smbios", file=Input(2)),
    )


@pytest.mark.parametrize(
    ("line", "ports"),
    [
        ("", ["console"]),
        ("-nodefaults", []),
        ("-serial null -serial file:x -serial pty", ["null", "console", "text"]),
        ("-serial none", ["none"]),
        ("-chardev pty,id=c -serial chardev:c", ["console"]),
        ("-chardev stdio,id=c,mux=on -mon chardev=c -serial chardev:c", ["console"]),
    ],
)
def test_serial_ports(line, ports):
    options = parse(line).spec.options
    assert [o.role for o in options if isinstance(o, Serial)] == ports


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("-net none", [NO_NET]),
        ("-nic none", [NO_NET]),
        (
            "-nic user,model=virtio,mac=52:54:00:00:00:01,restrict=on",
            [Netdev("card0", "user"), Nic("card0", "virtio", "52:54:00:00:00:01")],
        ),
        (
            "-net nic,model=rtl8139 -net user",
            [Netdev("card0", "user"), Nic("card0", "rtl8139")],
        ),
        (
            "-netdev socket,id=s,listen=:1234 -net nic,netdev=s,model=pcnet,addr=4",
            [Netdev("s", "isolated"), Nic("s", "pcnet", "", "4")],
        ),
    ],
)
def test_networks(line, parts):
    assert list(parse(line).spec.options) == [*parts, CONSOLE]


def test_relative_folders_of_the_live_network_are_made_absolute(files):
    live = parse("-netdev user,id=n,tftp=boot,bootfile=x").live_netdevs["n"]
    assert f"tftp={files}/boot,bootfile=x" in live


@pytest.mark.parametrize(
    ("line", "shift"),
    [("", 3), ("-icount 5", 5), ("-icount shift=auto", "auto"), ("-icount align=off", 3)],
)
def test_the_users_clock_is_honoured(line, shift):
    assert parse(line, shift=3).spec.shift == shift


@pytest.mark.parametrize(
    ("line", "shift"),
    [
        ("-kernel bzImage -append quiet", 4),
        ("-kernel bzImage -initrd initrd.img", 4),
        ("-hda disk.img", 4),
        ("-cdrom disk.img -boot d", 4),
        ("-blockdev file,node-name=d,filename=disk.img -device virtio-blk-pci,drive=d", 4),
        ("-kernel bzImage", 7),
        ("-bios bzImage -drive if=pflash,format=raw,file=vars.fd", 7),
        ("-M virt,pflash0=f -blockdev file,node-name=f,filename=vars.fd", 7),
        ("-fda disk.img", 7),
        ("-drive if=ide,index=2,media=cdrom", 7),
        ("-hda disk.img -icount 7", 7),
    ],
)
def test_a_system_has_a_faster_clock_than_firmware(line, shift):
    assert parse(line).spec.shift == shift


@pytest.mark.parametrize(
    "line",
    [
        "-display gtk -vnc :1 -k de -S -s -gdb tcp::1 -monitor stdio -D log -d int -trace x",
        "-pidfile x -sandbox on -no-user-config -mem-prealloc -msg timestamp=on -no-shutdown",
        "-qmp none -monitor none -mem-path /dev/hugepages -overcommit mem-lock=on",
    ],
)
def test_what_concerns_the_host_alone_is_left_out(line):
    assert parse(line).spec.options == (NO_NET, CONSOLE)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("-icount shift=5,align=off,sleep=off", "sleep=off"),
        ("-icount align=on", "align=on"),
        ("-enable-kvm", "TCG"),
        ("-accel kvm", "TCG"),
        ("-M accel=hvf", "TCG"),
        ("-accel kvm -accel whpx", "TCG"),
        ("-accel tcg,thread=multi", "thread"),
        ("-snapshot", "disk images"),
        ("-object iothread,id=t", "thread"),
        ("-object filter-dump,id=f,netdev=n,file=net.pcap", "packets"),
        ("-qmp unix:q.sock,server,nowait", "monitor|nobody listens"),
        ("-qmp-pretty stdio", "nobody listens"),
        ("-chardev socket,id=m,path=x -mon chardev=m,mode=control", "nobody listens"),
        ("-monitor telnet::45454,server,nowait", "nobody listens"),
    ],
)
def test_what_is_the_hosts_is_left_out_with_a_note(line, word):
    machine = parse(line, shift=5)
    assert machine.spec.options == (NO_NET, CONSOLE)
    assert machine.spec.shift == 5
    (note,) = machine.notes
    assert re.search(word, note)


@pytest.mark.parametrize("line", ["-M pc,accel=kvm:tcg,kernel_irqchip=on", "-accel kvm -accel tcg"])
def test_tcg_was_asked_for(line):
    machine = parse(line)
    assert machine.notes == ()
    assert "irqchip" not in str(machine.spec.options)


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("-cpu host", Text("cpu", "max")),
        ("-cpu host,pmu=off", Text("cpu", "max,pmu=off")),
        (
            "-object rng-random,id=r,filename=/dev/urandom",
            props("object", qom_type="rng-builtin", id="r"),
        ),
        (
            "-device virtio-scsi-pci,id=s,iothread=t",
            props("device", driver="virtio-scsi-pci", id="s"),
        ),
    ],
)
def test_what_is_replaced_is_noted(line, option):
    machine = parse(line)
    assert machine.spec.options[0] == option
    assert len(machine.notes) == 1


def test_writes_that_were_not_wanted_are_not_kept_anyway():
    (disk,) = parse("-drive file=disk.img,format=raw,snapshot=on").spec.disks()
    assert disk.writable


@pytest.mark.parametrize(
    ("line", "noted"),
    [
        ("-serial stdio", False),
        ("-serial mon:stdio", False),
        ("-serial file:x", False),
        ("-serial vc", False),
        ("-chardev file,id=c,path=x -serial chardev:c", False),
        ("-serial tcp:127.0.0.1:5555,server,nowait", True),
        ("-serial pty", True),
        ("-serial mon:telnet::1234,server", True),
        ("-chardev socket,id=c,path=x -serial chardev:c", True),
        ("-chardev socket,id=unused,path=x", False),
    ],
)
def test_a_console_that_is_not_connected_is_noted(line, noted):
    assert any("nothing is connected" in note for note in parse(line).notes) is noted


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("-debugcon stdio", []),
        ("-debugcon null", []),
        (
            "-device isa-debugcon,iobase=0x402,chardev=d -chardev file,id=d,path=x",
            [props("global", driver="isa-debugcon", property="iobase", value="0x402")],
        ),
    ],
)
def test_a_debugcon_is_kept(line, first):
    spec = parse(line).spec
    assert list(spec.options) == [*first, Text("debugcon", "kept"), NO_NET, CONSOLE]
    assert spec.ports() == ("console", "debugcon")


@pytest.mark.parametrize(
    ("line", "items"),
    [
        ("-semihosting", {}),
        ("-semihosting-config enable=on,target=native", {}),
        ("-semihosting-config on,target=gdb,arg=a,arg=b", {"arg": "b"}),
        ("-semihosting-config enable=on,chardev=c -chardev stdio,id=c", {}),
    ],
)
def test_semihosting_is_kept(line, items):
    machine = parse(line, "arm")
    (option,) = machine.spec.properties("semihosting-config")
    assert option.get("enable") == "on"
    assert all(option.get(key) == value for key, value in items.items())
    assert {item.key for item in option.items} <= {"enable", "arg"}
    assert machine.spec.ports() == ("console", "semihosting")
    assert any("SYS_CLOCK" in note for note in machine.notes)


def test_no_semihosting_was_asked_for():
    assert parse("-semihosting-config enable=off", "arm").spec.options == (NO_NET, CONSOLE)


def test_what_one_could_miss_is_noted():
    notes = " ".join(parse("-s -vnc :1 -serial stdio -serial pty -parallel stdio").notes)
    for word in ("-s ", "-vnc", "-serial pty", "-parallel"):
        assert word in notes
    assert parse("-display none -monitor none").notes == ()


REFUSED = {
    "made by -smp": ["-device qemu64-x86_64-cpu"],
    "2 places where maxcpus is 3": ["-smp 3,cores=2"],
    "4 places for 5": ["-smp 5,maxcpus=4"],
    "65 processors are more than 64": ["-smp 65"],
    "clusters of processors are not known": ["-smp 2,clusters=2"],
    "only TCG": ["-accel xen", "-accel whpx -accel xen"],
    "host's processor": ["-cpu max,host-cache-info=on"],
    "time zone": ["-rtc base=localtime", "-localtime"],
    "only ports made by -serial": [
        "-chardev stdio,id=c -device isa-serial,chardev=c",
        "-device usb-serial",
        "-device virtio-blk-pci,chardev=c",
    ],
    "virtio consoles": ["-device virtio-serial", "-device virtconsole"],
    "host's files": [
        "-virtfs local,path=/,mount_tag=x,security_model=none",
        "-fsdev local,id=x,path=/",
        "-device virtio-9p-pci,fsdev=x",
        "-device usb-mtp,rootdir=/",
    ],
    "vhost": ["-device vhost-vsock-pci", "-netdev vhost-user,id=n,chardev=c"],
    "real device": ["-device vfio-pci,host=1", "-device usb-host", "-hda /dev/null"],
    "random bytes": ["-object rng-egd,id=r"],
    "host's network device": ["-netdev tap,id=n", "-nic bridge", "-netdev vde,id=n"],
    "starts a process": ["-netdev user,id=n,guestfwd=tcp:1.2.3.4:1-cmd:id", "-nic user,smb=/"],
    "without a backend": ["-net nic"],
    "machine that starts": ["-incoming tcp:0:1", "-loadvm x", "-preconfig"],
    "sets record/replay up": [
        "-icount shift=7,rr=record,rrfile=x",
        "-drive driver=blkreplay,image=x",
        "-object filter-replay,id=f,netdev=n",
    ],
    "when it replays": ["-plugin x.so"],
    "watches the process": ["-daemonize", "-chroot /", "-runas nobody", "-run-with user=x"],
    "arguments in files": ["-readconfig x"],
    "change files of this machine": ["-semihosting", "-semihosting-config enable=on"],
    "outside QEMU": ["-tpmdev passthrough,id=t", "-device tpm-tis,tpmdev=t"],
    "whole directories": ["-L /usr/share"],
    "files of this machine": ["-hda nbd:localhost:10809", "-drive file=http://x/y.img"],
    "not known to be recordable": [
        "-writeconfig x",
        "-frobnicate 1",
        "-drive file=disk.img,foo=1",
        "-blockdev driver=nbd,node-name=n",
        "-drive file.driver=nbd,file.host=x",
    ],
    "there is no folder": ["-hda fat:nowhere"],
    "there is no file": ["-kernel vmlinux", "-hda no.img", "-device VGA,romfile=no.rom"],
    "not a regular file": ["-kernel ."],
    "vmdk": ["-drive file=disk.img,format=vmdk"],
    "not a qcow2": ["-drive file=disk.img,format=qcow2"],
    "hangs when the guest resets it": [
        *("-device virtio-gpu-pci", "-device virtio-vga,id=v", "-vga virtio"),
    ],
    "save its state": ["-device nvme,drive=d,serial=x", "-device usb-net"],
    "stalls": ["-device e1000,netdev=n", "-nic user", "-net nic -net user", "-nic user,model=igb"],
    "lacks its value": ["-kernel"],
    "option of its own": ["-M pc,kernel=x", "-M pc,smp.cpus=4"],
    "could lead out": ["-M pc,dumpdtb=x", "-global VGA.romfile=x"],
    "may not be": ["-device frobnicator", "-object secret,id=s,data=x", "-vga qxl", "-M a/b"],
    "JSON": ["-device {", "-netdev {}"],
    "taken": ["-drive file=disk.img,if=none,id=retrograde-vmstate"],
    "same id": ["-drive file=disk.img,if=none,id=d -drive file=vars.fd,if=none,id=d"],
}


@pytest.mark.parametrize(
    ("reason", "line"), [(reason, line) for reason, lines in REFUSED.items() for line in lines]
)
def test_refused_with_the_reason(reason, line):
    with pytest.raises(ArgumentRefused) as refusal:
        parse(line)
    assert reason in f"{refusal.value.what} {refusal.value.remedy}"
    assert refusal.value.what.endswith(".")
    assert refusal.value.remedy.endswith(".") or "qemu-img" in refusal.value.remedy


@pytest.mark.parametrize("line", ["-smp 2", "--smp cpus=2", "-smp cores=2", "-smp maxcpus=4"])
def test_several_processors_are_of_x86_64_only(line):
    with pytest.raises(ArgumentRefused, match="one processor"):
        parse_arguments(shlex.split(line), "aarch64")


@pytest.mark.parametrize(
    ("line", "all_of_it"),
    [
        ("-smp 2", "cpus=2,maxcpus=2,sockets=1,cores=2,threads=1"),
        ("-smp 4,sockets=2", "cpus=4,maxcpus=4,sockets=2,cores=2,threads=1"),
        ("-smp cores=2,threads=2", "cpus=4,maxcpus=4,sockets=1,cores=2,threads=2"),
        ("-smp 2,cores=1,threads=1", "cpus=2,maxcpus=2,sockets=2,cores=1,threads=1"),
        ("-smp 3,maxcpus=8,dies=2", "cpus=3,maxcpus=8,sockets=1,dies=2,cores=4,threads=1"),
    ],
)
def test_what_smp_leaves_out_is_worked_out(line, all_of_it):
    """As a QEMU that only parses it says in query-hotpluggable-cpus."""
    spec = parse(line).spec
    given = dict(pair.split("=") for pair in all_of_it.split(","))
    assert props("smp", **given) in spec.options
    assert spec.vcpus == int(given["cpus"])


def test_names_that_are_not_text_are_refused(files):
    name = b"kernel\xff"
    (files / name.decode(errors="surrogateescape")).write_bytes(b"x")
    with pytest.raises(ArgumentRefused, match="UTF-8"):
        parse_arguments(["-kernel", name.decode(errors="surrogateescape")], "x86_64")


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        ("--version", True),
        ("-h", True),
        ("-M help", True),
        ("-machine pc,help", True),
        ("-cpu ?", True),
        ("-append help", False),
        ("-kernel help -M pc", False),
        ("", False),
    ],
)
def test_questions_to_qemu_are_told_from_machines(line, asks):
    assert asks_only(shlex.split(line)) is asks


def test_a_board_without_firmware() -> None:
    machine = parse_arguments(["-M", "virt", "-bios", "none"], "riscv64")
    assert Text("bios", "none") in machine.spec.options
    assert machine.files == ()
