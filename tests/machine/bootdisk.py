"""A disk whose boot sector reads and writes it, and says what it found on COM1."""

from pathlib import Path

SIZE = 1440 << 10
"""A 3.5" floppy, so that it can be one."""

CONSOLE = b"ABCDEFGHIJKLMNOPQRST\n"
"""What it prints when each of its 20 writes is read back."""

# 8086 code for 0x7c00; sector 2 (CHS 0/0/2) is at 0x8000 while it is looked at.
_CODE = (
    "31c0 8ed8 8ec0 bc007c"  # segments 0, stack below the code
    "8816627c c706637c1400"  # drive = dl, count = 20
    "b80102 bb0080 b90200 b600 8a16627c cd13 722c"  # again: read it; on error print !
    "a00080 baf803 ee"  # its first byte to COM1
    "fe060080"  # that byte + 1
    "b80103 bb0080 b90200 b600 8a16627c cd13 720e"  # write it back
    "ff0e637c 75c9"  # count down, again
    "b00a baf803 ee eb06"  # newline, go to off
    "b021 baf803 ee"  # error: !
    "ba0406 b80020 ef"  # off: sleep state 5 to the ACPI port that SeaBIOS set
    "f4 ebfd"  # in case it does not
)


def write_boot_disk(path: Path) -> Path:
    """Write the disk to `path`, with A as the first byte of sector 2."""
    sector = bytes.fromhex(_CODE).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes((sector + b"A").ljust(SIZE, b"\0"))
    return path
