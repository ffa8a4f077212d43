"""ELF files as we read them, whole, cut and with any byte changed."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from retrograde.guests import builtin
from retrograde.index.symbols.elfpieces import Damaged, Elf

ELFS = sorted((Path(builtin.__file__).parent / "tiny").glob("*.elf"))


@pytest.mark.parametrize("path", ELFS, ids=lambda path: path.stem)
def test_pieces_are_at_their_addresses(path: Path) -> None:
    """Of every class and byte order, as pyelftools reads them."""
    elf = Elf(path)
    with path.open("rb") as file:
        reference = ELFFile(file)
        assert elf.is_movable == (reference["e_type"] == "ET_DYN")
        assert elf.has_symbols == bool(reference.get_section_by_name(".symtab"))
        pieces = list(elf.pieces())
        assert pieces
        for address, content in pieces:
            (offset,) = set(reference.address_offsets(address, len(content)))
            file.seek(offset)
            assert file.read(len(content)) == content
            assert address % 4096 + len(content) <= 4096
    assert pieces[0][0] == elf.entry


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_build_id_comes_first(tmp_path: Path) -> None:
    program = tmp_path / "program"
    (tmp_path / "program.c").write_text("int main(void) { return 0; }")
    words = ["cc", "-Wl,--build-id=0x0123456789abcdef", "-o", program, tmp_path / "program.c"]
    subprocess.run(words, check=True)
    elf = Elf(program)
    assert elf.note == struct.pack("=III", 4, 8, 3) + b"GNU\0" + bytes.fromhex("0123456789abcdef")
    assert next(elf.pieces())[1] == elf.note
    assert not elf.is_kernel
    # What has the names alone has no code to look for.
    names = tmp_path / "names"
    subprocess.run(["objcopy", "--only-keep-debug", program, names], check=True)
    assert [content for _, content in Elf(names).pieces()] == [elf.note]


def test_pieces_of_large_programs_are_few() -> None:
    elf = Elf(Path(sys.executable).resolve())
    assert 1 < len(list(elf.pieces())) <= 258


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\2\1" + bytes(40), b"text\n"])
def test_what_is_no_elf_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        list(Elf(path).pieces())


def test_damage_anywhere_is_damage_or_harmless(tmp_path: Path) -> None:
    """Neither memory nor time without end, and no other error."""
    whole = ELFS[0].read_bytes()
    path, chosen = tmp_path / "file", random.Random(1)
    for _ in range(400):
        content = bytearray(whole[: chosen.choice((len(whole), chosen.randrange(len(whole))))])
        for _ in range(chosen.randrange(4)):
            at = chosen.randrange(min(len(content), 0x200)) if content else 0
            content[at : at + 2] = chosen.randbytes(2)
        path.write_bytes(content)
        try:
            elf = Elf(path)
            assert sum(len(piece) for _, piece in elf.pieces()) < 1 << 20
            assert elf.is_kernel in (True, False)
            assert len(elf.sample()) <= 32
        except Damaged:
            pass
