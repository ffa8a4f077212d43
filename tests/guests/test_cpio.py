"""The newc writer, read back by a reader of its own and by the rules of the format."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st

from retrograde.guests import cpio

_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def _read(data: bytes) -> list[tuple[str, int, bytes, tuple[int, int], int]]:
    at, found = 0, []
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        field = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + 110 + field[11]
        assert data[name_end - 1] == 0
        name = data[at + 110 : name_end - 1].decode()
        body = (name_end + 3) & ~3
        assert not any(data[name_end:body])
        at = (body + field[6] + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found.append(
            (name, field[1], data[body : body + field[6]], (field[9], field[10]), field[0])
        )


@given(st.lists(st.tuples(_NAMES.filter(lambda n: n != "TRAILER!!!"), st.binary(max_size=40))))
def test_what_is_written_reads_back(files: list[tuple[str, bytes]]) -> None:
    entries = [cpio.program(name, data) for name, data in files]
    read = _read(cpio.archive(entries))
    assert [(name, data) for name, _, data, _, _ in read] == files
    inodes = [inode for *_, inode in read]
    assert len(set(inodes)) == len(inodes)  # equal inodes would be hard links


def test_directories_devices_and_programs() -> None:
    entries = [
        cpio.directory("dev"),
        cpio.character_device("dev/console", 5, 1),
        cpio.program("init", b"#!"),
    ]
    directory, device, program = _read(cpio.archive(entries))
    assert stat.filemode(directory[1]) == "drwxr-xr-x"
    assert stat.filemode(device[1]) == "crw-------"
    assert device[3] == (5, 1)
    assert stat.filemode(program[1]) == "-rwxr-xr-x"
    assert program[2] == b"#!"


def test_bytes_are_the_format_not_the_host() -> None:
    header = b"070701" + b"".join(b"%08X" % n for n in (1, 0o100755, 0, 0, 1, 0, 2, 0, 0, 0, 0, 5))
    assert cpio.archive([cpio.program("init", b"hi")]).startswith(
        header + b"00000000" + b"init\0\0" + b"hi\0\0"
    )
