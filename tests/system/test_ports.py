"""What ports beside the console write: kept, with the positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests.command import Done, retrograde
from tests.conftest import find_qemu

pytestmark = pytest.mark.qemu

# as and objcopy of a boot sector: "PEI one\n" to port 0x402, "hello\n" to 0x3f8, "DXE two\n" to
# 0x402, "\nbye\n" to 0x3f8, "second\n" to 0x2f8, by `mov dx; mov si; call` and an `out` loop; then
# 1 to 0xf4, isa-debug-exit's.
_BOOT = bytes.fromhex(
    "ba0204be3f7ce82d00baf803be487ce82400ba0204be4f7ce81b00baf803be58"
    "7ce81200baf802be5e7ce80900baf400b001eef4ebfdac08c07403eeebf8c350"
    "4549206f6e650a0068656c6c6f0a004458452074776f0a000a6279650a007365"
    "636f6e640a00"
)

# aarch64: SYS_WRITE0 "hello\n"; SYS_OPEN of the path behind the code, whose length is LEN,
# for writing; SYS_WRITE0 "kept out\n" where that failed and "let in\n" otherwise; SYS_EXIT 3.
_SEMIHOSTING = bytes.fromhex(
    "80008052a103001000005ed42000805201020010e2030030220000f900005ed4"
    "f30300aa80008052a10200707f0600b140000054a102003000005ed400038052"
    "4101001000005ed4000000141f2003d500000000000000000400000000000000"
    "4c454e00000000002600020000000000030000000000000068656c6c6f0a006b"
    "657074206f75740a006c657420696e0a00"
)
_LENGTH = b"LEN"


def boot_sector(folder: Path) -> list[str]:
    image = folder / "boot.img"
    image.write_bytes((_BOOT.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    drive = f"file={image},format=raw"
    return ["-M", "q35", "-m", "32", "-device", "isa-debug-exit,iobase=0xf4", "-drive", drive]


def semihosting(folder: Path, opens: Path) -> list[str]:
    image, path = folder / "semihosting.bin", str(opens).encode()
    code = _SEMIHOSTING.replace(_LENGTH, len(path).to_bytes(3, "little"))
    image.write_bytes(code + path + b"\0")
    return ["-M", "virt", "-cpu", "cortex-a57", "-m", "32", "-kernel", str(image)]


def record(folder: Path, target: str, words: list[str]) -> tuple[Recording, Done]:
    path = folder / "a.retro"
    given = ["-o", path, "--target", target, "--timeout", "60", "--", *words]
    done = retrograde("record", *given, cwd=folder)
    assert done.status == 0, done.stderr
    return Recording.open(path), done


@pytest.mark.parametrize(
    "debugcon",
    [
        ["-debugcon", "file:debug.log", "-global", "isa-debugcon.iobase=0x402"],
        [
            *("-device", "isa-debugcon,iobase=0x402,chardev=d"),
            *("-chardev", "file,id=d,path=debug.log"),
        ],
    ],
)
def test_texts_of_several_ports(debugcon: list[str], tmp_path: Path, qemu: Qemu) -> None:
    serial = ["-serial", "file:first.log", "-serial", "file:second.log"]
    recording, _ = record(tmp_path, "x86_64", [*boot_sector(tmp_path), *debugcon, *serial])
    ports = recording.ports
    assert list(ports) == ["console", "serial1", "debugcon"]
    assert ports["debugcon"].data.endswith(b"PEI one\nDXE two\n")
    assert ports["console"].data.endswith(b"hello\n\nbye\n")
    assert ports["serial1"].data == b"second\n"
    for name, file in (("debugcon", "debug"), ("console", "first"), ("serial1", "second")):
        assert (tmp_path / f"{file}.log").read_bytes() == ports[name].data
    assert recording.console_bytes() == ports["console"].data
    order = ["debugcon:PEI", "console:hello", "debugcon:'DXE two'", "console:bye", "serial1:second"]
    positions = [recording.resolve(text) for text in order]
    assert positions == sorted(set(positions))
    # Each byte is one turn of the same four instructions.
    assert recording.resolve("debugcon:'PEI one'") - positions[0] == 4 * 5
    done = retrograde("replay", recording.path, "--to", "debugcon:'DXE two'")
    assert done.status == 0, done.stderr
    assert done.stdout.endswith(b"hello\n")


def test_semihosting_writes_exits_and_changes_no_file(tmp_path: Path) -> None:
    find_qemu("aarch64")
    victim = tmp_path / "victim"
    words = [*semihosting(tmp_path, victim), "-semihosting-config", "enable=on,target=native"]
    recording, done = record(tmp_path, "aarch64", [*words, "-nographic"])
    assert "semihosting" in done.stderr
    assert (recording.manifest.status, recording.manifest.ending) == (3, "quit")
    assert recording.ports["semihosting"].data == b"hello\nkept out\n"
    assert recording.console.data == b""
    replayed = retrograde("replay", recording.path)
    assert replayed.status == 0, replayed.stderr
    assert not victim.exists()
    back = retrograde("verify", recording.path, "--gdb", "gdb-multiarch")
    assert back.status == 0, back.stderr
