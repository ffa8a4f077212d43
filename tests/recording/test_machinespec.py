import msgspec
import pytest

from retrograde.recording.machinespec import (
    Disk,
    File,
    Flag,
    Input,
    Layer,
    MachineSpec,
    Netdev,
    Nic,
    Properties,
    Property,
    Serial,
    Text,
)


def decode(*options, **fields):
    machine = {"target": "x86_64", "options": list(options), **fields}
    return msgspec.json.decode(msgspec.json.encode(machine), type=MachineSpec)


def properties(name, *items):
    return {"kind": "properties", "name": name, "items": [list(item) for item in items]}


def test_a_machine_survives_json():
    spec = MachineSpec(
        "x86_64",
        (
            Flag("nodefaults"),
            Text("append", "root=/dev/vda console=ttyS0"),
            File("kernel", 0),
            Properties("device", (Property("driver", "loader"), Property("file", Input(1)))),
            Disk("d0", "none", "disk", True, (Layer(2, "qcow2"), Layer(3, "raw")), unit=1),
            Netdev("net0", "user"),
            Nic("net0", "virtio-net-pci", "52:54:00:12:34:56"),
            Serial("console"),
        ),
        "auto",
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=MachineSpec) == spec
    assert spec.inputs() == {0, 1, 2, 3}
    assert [disk.id for disk in spec.overlaid()] == ["d0"]


@pytest.mark.parametrize(
    "option",
    [
        {"kind": "flag", "name": "enable-kvm"},
        {"kind": "flag", "name": "s"},
        {"kind": "flag", "name": "kernel"},
        {"kind": "text", "name": "qmp", "value": "stdio"},
        {"kind": "text", "name": "plugin", "value": "evil.so"},
        {"kind": "text", "name": "cpu", "value": "host"},
        {"kind": "text", "name": "cpu", "value": "max,host-cache-info=on"},
        {"kind": "text", "name": "net", "value": "tap"},
        {"kind": "text", "name": "parallel", "value": "/dev/parport0"},
        {"kind": "text", "name": "debugcon", "value": "file:x"},
        {"kind": "text", "name": "usbdevice", "value": "host:1.2"},
        {"kind": "text", "name": "append", "value": "a\0b"},
        {"kind": "text", "name": "append", "value": "x" * (1 << 17)},
        {"kind": "file", "name": "plugin", "input": 0},
        {"kind": "file", "name": "kernel", "input": -1},
        {"kind": "file", "name": "kernel", "input": "/etc/passwd"},
        {"kind": "file", "name": "kernel", "input": 0, "path": "/etc/passwd"},
        properties("chardev", ("backend", "stdio"), ("id", "x")),
        properties("drive", ("file", "x")),
        properties("device", ("driver", "vfio-pci")),
        properties("device", ("driver", "VGA"), ("romfile", "/etc/passwd")),
        properties("device", ("driver", "VGA"), ("romfile", "passwd")),
        properties("device", ("driver", "VGA"), ("x", {"input": 0})),
        properties("device", ("driver", "VGA"), ("chardev", "c")),
        properties("device", ("driver", "VGA"), ("chardev", "retrograde-monitor")),
        properties("device", ("driver", "loader"), ("file", "passwd")),
        properties("device", ("id", "x"), ("driver", "vfio-pci")),
        properties("device", ("driver", "VGA"), ("driver", "vfio-pci")),
        properties("device", ("driver", "virtio-blk-pci"), ("drive", "retrograde-vmstate")),
        properties("device", ("driver", "virtio-blk-pci"), ("iothread", "t0")),
        properties("device"),
        properties("machine", ("type", "pc"), ("accel", "kvm")),
        properties("machine", ("dumpdtb", "out.dtb")),
        properties("machine", ("firmware", "f")),
        properties("machine", ("smp.cpus", "4")),
        properties("machine", ("kernel", {"input": 0})),
        properties("machine", ("x", "a/b")),
        properties("machine", ("x", "exec:id")),
        properties("global", ("driver", "VGA"), ("property", "romfile"), ("value", "x")),
        properties("global", ("driver", "isa-debugcon"), ("property", "chardev"), ("value", "x")),
        properties("global", ("driver", "migration"), ("property", "a"), ("value", "x")),
        properties("global", ("property", "vapic"), ("value", "off")),
        properties("object", ("qom-type", "memory-backend-file"), ("id", "m")),
        properties("object", ("qom-type", "memory-backend-ram"), ("mem-path", "m")),
        properties("object", ("qom-type", "rng-random")),
        properties("m", ("size", "1G"), ("path", "x")),
        properties("smp", ("cpus", "0")),
        properties("smp", ("cpus", "2,x=y")),
        properties("smp", ("cores", "2")),
        properties("rtc", ("base", "localtime")),
        properties("smbios", ("type", "11"), ("path", "x")),
        properties("smbios", ("file", "x")),
        properties("fw_cfg", ("name", "opt/x"), ("file", "x")),
        properties("fw_cfg", ("name", "opt/x"), ("gen_id", "x")),
        properties("audiodev", ("driver", "wav"), ("id", "x")),
        properties("audiodev", ("driver", "none"), ("id", "x"), ("path", "x")),
        properties("action", ("shutdown", "pause")),
        {"kind": "netdev", "id": "n", "backend": "tap"},
        {"kind": "netdev", "id": "n,script=x", "backend": "user"},
        {"kind": "netdev", "id": "n", "backend": "user", "hostfwd": "tcp::1-:2"},
        {"kind": "nic", "netdev": "missing"},
        {"kind": "serial", "role": "file:/tmp/x"},
    ],
    ids=lambda option: str(option)[:100],
)
def test_a_strangers_option_outside_the_list_is_refused(option):
    with pytest.raises(msgspec.ValidationError):
        decode(option)


# Properties of QEMU's boards, devices and objects that lead to the host.
HOST_KEYS = (
    *("accel", "chardev", "confidential-guest-support", "display", "downscript", "dtb", "dumpdtb"),
    *("evdev", "fd", "file", "filename", "firmware", "fsdev", "helper", "host", "hostbus"),
    *("hostdevice", "ifname", "initrd", "iothread", "kernel", "logfile", "mem-path"),
    *("memory-encryption", "path", "rootdir", "script", "server", "shim", "smp", "smp.cpus"),
    *("socket", "sysfsdev", "tls-creds", "tpmdev", "vhost", "vhostdev", "vhostfd"),
    *("iothread-vq-mapping", "a/b", "x,file", ""),
)


@pytest.mark.parametrize("key", HOST_KEYS)
def test_no_board_device_object_or_global_property_leads_to_the_host(key):
    for option in (
        properties("machine", ("type", "pc"), (key, "x")),
        properties("device", ("driver", "VGA"), (key, "x")),
        properties("object", ("qom-type", "rng-builtin"), (key, "x")),
        properties("global", ("driver", "VGA"), ("property", key), ("value", "x")),
    ):
        with pytest.raises(msgspec.ValidationError):
            decode(option)


@pytest.mark.parametrize(
    "key", ["hpet", "addr", "bus", "bootindex", "host_mtu", "logical_block_size", "kernel-irqchip"]
)
def test_properties_of_the_machine_itself_are_accepted(key):
    decode(properties("device", ("driver", "VGA"), (key, "x")))


def disk(**fields):
    plain = {"kind": "disk", "id": "d", "interface": "none", "media": "disk", "writable": False}
    return {**plain, **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "retrograde-vmstate"},
        {"id": ""},
        {"id": "a,file=x"},
        {"interface": "xen"},
        {"writable": True},
        {"layers": [{"input": 0, "format": "vmdk"}]},
        {"layers": [{"input": 0}]},
        {"index": -1},
        {"file": "/etc/passwd"},
    ],
    ids=str,
)
def test_a_strangers_disk_outside_the_list_is_refused(fields):
    decode(disk())
    with pytest.raises(msgspec.ValidationError):
        decode(disk(**fields))


def test_two_parts_may_not_have_one_id():
    with pytest.raises(msgspec.ValidationError, match="same id"):
        decode(disk(), disk())
    with pytest.raises(msgspec.ValidationError, match="two consoles"):
        decode(*[{"kind": "serial", "role": "console"}] * 2)


@pytest.mark.parametrize("fields", [{"target": "../x"}, {"shift": 11}, {"argv": ["-S"]}], ids=str)
def test_a_strangers_machine_outside_the_schema_is_refused(fields):
    with pytest.raises(msgspec.ValidationError):
        decode(**fields)


def test_devices_that_wait_for_each_access_are_known():
    spec = decode(
        disk(id="card"),
        disk(id="hard"),
        disk(id="", interface="floppy"),
        disk(id="flash"),
        properties("device", ("driver", "sd-card"), ("drive", "card")),
        properties("device", ("driver", "ide-hd"), ("drive", "hard")),
        properties("machine", ("pflash0", "flash")),
    )
    assert [spec.is_synchronous(d) for d in spec.disks()] == [True, False, True, True]
