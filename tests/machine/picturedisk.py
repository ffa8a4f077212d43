"""A disk whose boot sector shows one picture after the other, and says so on COM1."""

from pathlib import Path

SIZE = 1440 << 10

# 8086 code for 0x7c00. Each stage ends with its letter on COM1.
_BEGIN = "31c0 8ed8 bc007c"
_STAGES = (
    # Text: mode 3, no cursor, colours in video memory; T.
    "b80300 cd10 b90020 b401 cd10 6800b8 07 31ff 89f8 ab 81ffa00f 75f7 b054 baf803 ee",
    # Graphics: mode 13h, every pixel another colour than its neighbour; G.
    "b81300 cd10 6800a0 07 31ff 89f8 00e0 aa 81ff00fa 75f5 b047 baf803 ee",
    # One row of it again, all white; W.
    "bf807d b0 0f b94001 f3aa b057 baf803 ee",
)
LETTERS = "TGW"
_END = "b00a baf803 ee ba0406 b80020 ef"  # newline; sleep state 5 to the ACPI port
_STAY = "fa f4 ebfd"


# Say R on COM1, then each key that is pressed; power off behind a q.
_KEYS = "b052 baf803 ee b400 cd16 baf803 ee 3c71 75f4" + _END + _STAY


def write_key_disk(path: Path) -> Path:
    """Write a disk to `path` whose boot sector says on COM1 what is typed at the keyboard."""
    sector = bytes.fromhex(_BEGIN + _KEYS).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(SIZE, b"\0"))
    return path


def write_picture_disk(path: Path, stages: int = len(_STAGES), *, ends: bool = True) -> Path:
    """Write the disk to `path`; after so many stages it powers off, or stands still."""
    code = _BEGIN + "".join(_STAGES[:stages]) + (_END if ends else "") + _STAY
    sector = bytes.fromhex(code).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(SIZE, b"\0"))
    return path
