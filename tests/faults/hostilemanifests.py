"""Manifests a stranger may write: each is refused before QEMU gets to see any of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.faults.place import Place

Edit = Callable[[dict[str, Any]], object]

SECRET = "/etc/shadow"


def _option(**fields: Any) -> Edit:
    return lambda m: m["machine"]["options"].append(fields)


def _flag(name: str) -> Edit:
    return _option(kind="flag", name=name)


def _text(name: str, value: str) -> Edit:
    return _option(kind="text", name=name, value=value)


def _file(name: str, number: object = 0) -> Edit:
    return _option(kind="file", name=name, input=number)


def _properties(name: str, *items: tuple[str, object]) -> Edit:
    return _option(kind="properties", name=name, items=[list(item) for item in items])


def _device(driver: str, *items: tuple[str, object]) -> Edit:
    return _properties("device", ("driver", driver), *items)


def _object(kind: str, *items: tuple[str, object]) -> Edit:
    return _properties("object", ("qom-type", kind), ("id", "x"), *items)


def _disk(**fields: Any) -> Edit:
    plain = {"kind": "disk", "id": "d", "interface": "none", "media": "disk", "writable": False}
    return _option(**(plain | fields))


def _set(**fields: Any) -> Edit:
    return lambda m: m.update(fields)


def _machine(**fields: Any) -> Edit:
    return lambda m: m["machine"].update(fields)


def _input(**fields: Any) -> Edit:
    return lambda m: m["inputs"][0].update(fields)


def _qemu(**fields: Any) -> Edit:
    return lambda m: m["qemu"].update(fields)


def _both(*edits: Edit) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        for one in edits:
            one(manifest)

    return edit


_LAYER = {"input": 0, "format": "raw"}
_NIC = {"kind": "nic", "netdev": "n"}
_NETDEV = {"kind": "netdev", "id": "n", "backend": "isolated"}

EDITS: Mapping[str, Edit] = {
    # options that open files, host devices and sockets, run or load something
    **{
        f"-{name}": _text(name, value)
        for name, value in {
            "drive": f'json:{{"driver":"raw","file":"{SECRET}"}}',
            "monitor": "stdio",
            "chardev": f"file,id=c,path={SECRET}",
            "plugin": "/tmp/evil.so",
            "serial": "stdio",
            "qmp": "unix:/tmp/x,server",
            "gdb": "tcp::1234",
            "netdev": "tap,script=/tmp/evil.sh",
            "readconfig": SECRET,
            "incoming": "exec:/tmp/evil.sh",
            "loadvm": "x",
            "D": "/tmp/victim",
            "d": "exec",
            "trace": "file=/tmp/victim",
            "pidfile": "/tmp/victim",
            "chroot": "/tmp",
            "runas": "nobody",
            "sandbox": "off",
            "L": "/tmp",
            "hda": SECRET,
            "cdrom": SECRET,
            "pflash": SECRET,
            "mem-path": "/tmp",
            "virtfs": "local,path=/,mount_tag=x,security_model=none",
            "fsdev": "local,id=f,path=/",
            "tpmdev": "passthrough,id=t",
            "vnc": ":0",
            "spice": "port=1",
            "display": "gtk",
            "icount": "rr=record,rrfile=/tmp/victim",
            "add-fd": "fd=0,set=1",
            "set": "x.y=z",
            "kernel": SECRET,
            "compat": "x",
            "semihosting-config": "enable=on",
        }.items()
    },
    **{
        f"-{name}": _flag(name)
        for name in ("daemonize", "S", "enable-kvm", "snapshot", "semihosting")
    },
    "flag of escapes": _flag("\x1b[2J"),
    "-cpu host": _text("cpu", "host"),
    "-cpu with host property": _text("cpu", "max,host-cache-info=on"),
    "-append NUL": _text("append", "a\0b"),
    "-append of 70 kB": _text("append", "x" * 70_000),
    "-bios path": _text("bios", SECRET),
    "-vga word": _text("vga", "qxl"),
    "-uuid": _text("uuid", "x" * 36),
    "-parallel": _text("parallel", "file:/tmp/victim"),
    "-kernel number 999": _file("kernel", 999),
    "-kernel number -1": _file("kernel", -1),
    "-kernel number 1.5": _file("kernel", 1.5),
    "-kernel number text": _file("kernel", SECRET),
    "-mtdblock": _file("mtdblock"),
    "unknown kind": _option(kind="shell", name="x"),
    "unknown field": _option(kind="flag", name="usb", also="x"),
    "no kind": _option(name="usb"),
    # devices and objects
    **{
        f"device {name}": _device(name)
        for name in (
            *(
                "vfio-pci",
                "isa-serial",
                "virtio-9p-pci",
                "vhost-user-blk",
                "usb-host",
                "pci-serial",
            ),
            *("ivshmem-plain", "virtio-serial", "usb-mtp", "usb-redir", "vhost-vsock-pci", "xen"),
            *("ipmi-bmc-extern", "nvme", "usb-ccid", "usb-serial", "testdev", "tpm-tis", "x\x1b"),
        )
    },
    **{
        f"device with {key}": _device("virtio-rng-pci", (key, value))
        for key, value in {
            "chardev": "c",
            "fsdev": "f",
            "script": "x",
            "vhostfd": "3",
            "hostaddr": "x",
            "sdrfile": SECRET,
            "iothread": "x",
            "evdev": "/dev/input",
            "tls-creds": "x",
            "secret": "x",
            "logfile": "/tmp/victim",
            "a b": "x",
            "rng": "/dev/urandom",
        }.items()
    },
    "loader file": _device("loader", ("file", SECRET)),
    "loader, file not first": _properties("device", ("file", SECRET), ("driver", "loader")),
    "romfile": _device("virtio-net-pci", ("romfile", SECRET)),
    "file where none may be": _device("virtio-rng-pci", ("max-bytes", {"input": 0})),
    "device value exec:": _device("virtio-rng-pci", ("x", "exec:/tmp/evil.sh")),
    "device value unix:": _device("virtio-rng-pci", ("x", "unix:/tmp/x")),
    "device without driver": _properties("device", ("id", "x")),
    "device with our id": _device("virtio-rng-pci", ("id", "retrograde-x")),
    "device with our drive": _device("virtio-blk-pci", ("drive", "retrograde0")),
    **{
        f"object {name}": _object(name)
        for name in (
            *("memory-backend-file", "memory-backend-memfd", "secret", "filter-dump", "iothread"),
            *("input-linux", "rng-random", "rng-egd", "tls-creds-x509", "authz-pam", "cryptodev"),
            *("sev-guest", "filter-mirror", "throttle-group", "x-remote-object"),
        )
    },
    "object with mem-path": _object("memory-backend-ram", ("mem-path", "/dev/sda")),
    "audiodev wav": _properties("audiodev", ("driver", "wav"), ("id", "a"), ("path", "/tmp/v")),
    "audiodev in-file": _properties(
        "audiodev", ("driver", "none"), ("id", "a"), ("path", "/tmp/v")
    ),
    "global of memory-backend": _properties(
        "global", ("driver", "memory-backend-ram"), ("property", "x"), ("value", "y")
    ),
    "global of migration": _properties(
        "global", ("driver", "migration"), ("property", "x"), ("value", "y")
    ),
    "global of a file": _properties(
        "global", ("driver", "x"), ("property", "filename"), ("value", "y")
    ),
    "global upside down": _properties("global", ("property", "x"), ("driver", "y"), ("value", "")),
    **{
        f"machine {key}": _properties("machine", ("type", "pc"), (key, value))
        for key, value in {
            "firmware": SECRET,
            "kernel": SECRET,
            "initrd": SECRET,
            "dumpdtb": "/tmp/victim",
            "accel": "kvm",
            "smp.cpus": "2",
            "memory-encryption": "x",
            "append": "x",
            "shim": SECRET,
            "memory-backend": "retrograde-ram",
        }.items()
    },
    "machine type with comma": _properties("machine", ("type", "pc,accel=kvm")),
    "machine type with path": _properties("machine", ("type", "../pc")),
    "m of a path": _properties("m", ("size", "/etc")),
    "smp of two": _properties("smp", ("cpus", "2")),
    "smp of no places": _properties("smp", ("cpus", "4"), ("cores", "3")),
    "smp of none": _properties("smp", ("maxcpus", "1")),
    "smp twice": _properties("smp", ("cpus", "1"), ("cpus", "2")),
    "fw_cfg file": _properties("fw_cfg", ("name", "opt/x"), ("file", SECRET)),
    "fw_cfg name": _properties("fw_cfg", ("name", "opt/x;y"), ("string", "x")),
    "smbios file": _properties("smbios", ("file", SECRET)),
    "smbios path": _properties("smbios", ("type", "11"), ("path", SECRET)),
    "boot splash": _properties("boot", ("splash", SECRET)),
    "rtc": _properties("rtc", ("base", "/etc")),
    "name process": _properties("name", ("guest", "x"), ("process", "y")),
    "numa memdev of ours": _properties("numa", ("type", "node"), ("memdev", "retrograde-ram")),
    "chardev as properties": _properties("chardev", ("backend", "file"), ("path", "/tmp/victim")),
    # disks, networks, serial ports
    "disk of no input": _disk(layers=[{"input": 7, "format": "raw"}]),
    "disk over nbd": _disk(layers=[{"input": 0, "format": "nbd"}]),
    "disk in vvfat": _disk(layers=[{"input": 0, "format": "vvfat"}]),
    "disk by path": _disk(layers=[{"input": 0, "format": "raw", "file": SECRET}]),
    "disk of 33 layers": _disk(layers=[_LAYER] * 33),
    "disk with our id": _disk(id="retrograde-disk", layers=[_LAYER]),
    "disk with an id of two": _disk(id="d,file=/etc/shadow", layers=[_LAYER]),
    "disk without id": _disk(id="", layers=[_LAYER]),
    "disk on nothing": _disk(interface="nvme", layers=[_LAYER]),
    "disk empty and written": _disk(writable=True),
    "disk on slot -1": _disk(layers=[_LAYER], index=-1),
    "disks of one id": _both(_disk(layers=[_LAYER]), _disk(layers=[_LAYER])),
    "netdev tap": _option(kind="netdev", id="n", backend="tap"),
    "netdev with a script": _option(kind="netdev", id="n", backend="user", smb="/"),
    "netdevs of one id": _both(_option(**_NETDEV), _option(**_NETDEV)),
    "nic of no netdev": _option(kind="nic", netdev="nowhere"),
    "nic with newline": _both(_option(**_NETDEV), _option(**_NIC, model="e1000\n")),
    "nic with more in its mac": _both(_option(**_NETDEV), _option(**_NIC, mac="x,script=y")),
    "nic with a long address": _both(_option(**_NETDEV), _option(**_NIC, address="0" * 99)),
    "serial to a file": _option(kind="serial", role="file:/tmp/victim"),
    "two consoles": _option(kind="serial", role="console"),
    # target, inputs and files
    "target path": _machine(target="../../bin/sh"),
    "target words": _machine(target="x86_64 -monitor stdio"),
    "target newline": _machine(target="x86_64\n"),
    "target empty": _machine(target=""),
    "shift 99": _machine(shift=99),
    "shift text": _machine(shift="sleep"),
    "options without end": _machine(options=[{"kind": "flag", "name": "usb"}] * 1001),
    **{
        f"input called {name!r}": _input(name=name)
        for name in (
            *(
                "..",
                ".",
                "",
                "/etc/passwd",
                "a/../../b",
                "a/b",
                "x\n",
                "x\0",
                "\u202ex",
                "-x",
                ".x",
            ),
            *("x" * 200, "../../etc/passwd", "é"),
        )
    },
    "input twice": lambda m: m["inputs"].append(m["inputs"][0]),
    "input left out": _set(inputs=[]),
    "input digest": _input(sha256="0" * 63),
    "input digest of capitals": _input(sha256="A" * 64),
    "input of -1 bytes": _input(bytes=-1),
    "file ../x": lambda m: m["files"].update({"../x": m["files"]["replay.log"]}),
    "file missing": lambda m: m["files"].pop("replay.log"),
    "no files": _set(files={}),
    # numbers and words
    "end -1": _set(end=-1),
    "end beyond what QEMU counts": _set(end=1 << 63),
    "end of words": _set(end="the end"),
    "end true": _set(end=True),
    "RAM without end": lambda m: m["ram"].update(bytes=1 << 62),
    "RAM -1": lambda m: m["ram"].update(bytes=-1),
    "status 256": _set(status=256),
    "seconds -1": _set(seconds=-1),
    "ending": _set(ending="exploded"),
    "complete and killed": _set(ending="killed"),
    "quirk nobody knows": _set(quirks=["no-such-remedy"]),
    "quirk of escapes": _set(quirks=["\x1b[31m"]),
    "version of escapes": _qemu(version="\x1b]0;owned\x07"),
    "tool of escapes": _set(tool="\x9b2J"),
    "created of 5000": _set(created="x" * 5000),
    "program": _qemu(path="/bin/sh"),
    "log version -1": _qemu(log_version=-1),
    "format 0": _set(format=0),
    "format 2": _set(format=2),
    "format text": _set(format="1"),
    "another field": _set(nonsense=1),
    "events of -1": lambda m: m["events"].update(x=-1),
}


def _raw(content: bytes) -> Callable[[bytes], bytes]:
    return lambda _: content


TEXTS: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": _raw(b""),
    "cut": lambda good: good[: len(good) // 2],
    "binary": _raw(b"\xff\xfe\x00"),
    "list": _raw(b"[]"),
    "null": _raw(b"null"),
    "deep": _raw(b"[" * 200_000),
    "deep within": lambda good: b'{"format":1,"x":' + b"[" * 100_000 + good,
    "UTF-16": lambda good: good.decode().encode("utf-16"),
    "bad UTF-8": lambda good: good.replace(b"retrograde", b"\xff\xff"),
    "NaN": lambda good: good.replace(b'"seconds": ', b'"seconds": NaN, "x": '),
    "1e999": lambda good: good.replace(b'"status": 0', b'"status": 1e999'),
    "5000 digits": lambda good: good.replace(b'"status": 0', b'"status": ' + b"9" * 5000),
    "2 MB": lambda good: good + b" " * (2 << 20),
    "something after": lambda good: good + b"{}",
    "two fields of one name": lambda good: good.replace(b'"end":', b'"end": "x", "end":'),
    "lone surrogate": lambda good: good.replace(b"retrograde", rb"\ud800"),
    "escaped NUL": lambda good: good.replace(b'"x86_64"', rb'"x86_64\u0000"'),
}


def cases() -> Iterator[tuple[str, Callable[[Place], object]]]:
    """Yield names, and what spoils the recording of a place."""

    def edited(edit: Edit) -> Callable[[Place], object]:
        def spoil(place: Place) -> None:
            path = place.recording / "manifest.json"
            manifest = json.loads(path.read_bytes())
            edit(manifest)
            path.write_text(json.dumps(manifest))

        return spoil

    def rewritten(rewrite: Callable[[bytes], bytes]) -> Callable[[Place], object]:
        def spoil(place: Place) -> None:
            path = place.recording / "manifest.json"
            path.write_bytes(rewrite(path.read_bytes()))

        return spoil

    yield from ((name, edited(edit)) for name, edit in EDITS.items())
    yield from ((f"text: {name}", rewritten(how)) for name, how in TEXTS.items())
