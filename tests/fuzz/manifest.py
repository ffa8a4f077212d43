"""Fuzz target: manifests, up to the command line that is made of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from retrograde.commandline.command import Launch, replay_command
from retrograde.errors import FormatTooNew, ManifestError
from retrograde.recording.manifest import decode_manifest, encode_manifest
from tests.fuzz.mutation import change_json as mutate  # noqa: F401 - part of a target
from tests.machine.images import raw_image

_DIGEST = "0" * 64
_PLAIN = {
    "format": 1,
    "tool": "retrograde 1",
    "created": "2026-01-01T00:00:00+00:00",
    "qemu": {"version": "10.0.2", "sha256": _DIGEST},
    "machine": {"target": "x86_64", "options": []},
    "ram": {"bytes": 1 << 27, "shared": True},
    "snapshot": True,
}
_OPTIONS = (
    {"kind": "flag", "name": "nodefaults"},
    {"kind": "text", "name": "append", "value": "console=ttyS0 a,b"},
    {"kind": "text", "name": "cpu", "value": "max,+avx"},
    {"kind": "file", "name": "kernel", "input": 0},
    {"kind": "properties", "name": "machine", "items": [["type", "q35"]]},
    {
        "kind": "properties",
        "name": "device",
        "items": [["driver", "virtio-net-pci"], ["romfile", {"input": 1}]],
    },
    {"kind": "properties", "name": "device", "items": [["driver", "AC97"]]},
    {"kind": "properties", "name": "smp", "items": [["cpus", "1"]]},
    {
        "kind": "disk",
        "id": "d0",
        "interface": "virtio",
        "media": "disk",
        "writable": True,
        "layers": [{"input": 1, "format": "qcow2"}],
    },
    {"kind": "disk", "id": "", "interface": "ide", "media": "cdrom", "writable": False},
    {"kind": "netdev", "id": "n0", "backend": "user"},
    {"kind": "nic", "netdev": "n0", "model": "virtio"},
    {"kind": "serial", "role": "console"},
    {"kind": "serial", "role": "null"},
    {"kind": "serial", "role": "text"},
    {"kind": "text", "name": "debugcon", "value": "kept"},
)
_SEMIHOSTING = {"kind": "properties", "name": "semihosting-config", "items": [["enable", "on"]]}
_WHOLE = _PLAIN | {
    "format": 2,
    "machine": {"target": "x86_64", "options": _OPTIONS, "shift": "auto"},
    "quirks": ["vapic"],
    "inputs": [{"name": name, "sha256": _DIGEST, "bytes": 9} for name in ("kernel", "disk")],
    "complete": True,
    "ending": "guest-shutdown",
    "end": 1000,
    "events": {"instruction": 5},
    "files": {
        name: {"bytes": 1, "sha256": _DIGEST}
        for name in ("replay.log", "console.log", "machine.qcow2", "ports.log")
    },
}

MOST = 4096

SEEDS = tuple(
    msgspec.json.encode(one)
    for one in (
        *(_PLAIN, _WHOLE, _PLAIN | {"format": 2}, {"format": -1}, []),
        *(
            _WHOLE | {"machine": {"target": "arm", "options": [option]}}
            for option in (*_OPTIONS, _SEMIHOSTING)
            if option["kind"] != "nic"
        ),
    )
)


def open_target(place: Path) -> Callable[[bytes], None]:
    image = raw_image()

    def one_input(data: bytes) -> None:
        try:
            manifest = decode_manifest(data, "a.retro")
        except (ManifestError, FormatTooNew) as error:
            assert len(str(error)) < 600
            return
        again = encode_manifest(manifest)
        assert decode_manifest(again, "a.retro") == manifest
        spec, count = manifest.machine, len(manifest.inputs)
        for disk in spec.disks():
            spec.is_synchronous(disk)
        launch = Launch(
            "qemu",
            [f"/dev/fd/{number}" for number in range(count)],
            image,
            "/dev/fd/3",
            4,
            layers=dict.fromkeys(range(count), image),
            overlays=[image for _ in spec.overlaid()],
        )
        for word in replay_command(spec, launch):
            assert b"\0" not in os.fsencode(word)

    return one_input
