"""Guests that use devices: which there are, and the kernel they start with."""

from __future__ import annotations

import lzma
import re
import struct

import pytest

from retrograde.commandline.arguments import parse_arguments
from retrograde.errors import EnvironmentLacks
from retrograde.guests import devices
from retrograde.guests.devices import device_groups
from retrograde.guests.modular import unpacked_kernel

PROGRAM = b"\x7fELF" + bytes(range(256)) * 64


def packed(payload: bytes) -> bytes:
    """Return a bzImage of two sectors of setup: where its payload is, as boot.rst has it."""
    image = bytearray(3 * 512)
    image[0x1F1] = 2
    image += bytes(100) + payload
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + bytes(64)


def test_a_kernel_is_unpacked() -> None:
    assert unpacked_kernel(packed(lzma.compress(PROGRAM) + struct.pack("<I", 77))) == PROGRAM


def test_a_kernel_packed_otherwise_is_refused() -> None:
    with pytest.raises(EnvironmentLacks, match="not packed with xz"):
        unpacked_kernel(packed(b"\x28\xb5\x2f\xfd" + bytes(100)))


@pytest.mark.parametrize("group", device_groups())
def test_all_devices_may_be_recorded(group: str, tmp_path, monkeypatch) -> None:
    for name in ("vmlinux", "initrd.cpio", "disk.raw"):
        (tmp_path / name).write_bytes(bytes(512))
    monkeypatch.setattr(devices, "cached", lambda _name, _make: tmp_path)
    guest = devices.devices_guest(group)
    machine = parse_arguments(guest.qemu_args, guest.target)
    assert set(device_groups()[group]) <= set(machine.spec.models())
    (count,) = re.findall(r"count=(\d+)", guest.qemu_args[-1])
    assert 0 < int(count) <= len(device_groups()[group])
    (name,) = device_groups()[group][-1:]
    assert set(device_groups()[group]) & set(
        parse_arguments(devices.devices_guest(group, [name]).qemu_args, "x86_64").spec.models()
    ) == {name}
