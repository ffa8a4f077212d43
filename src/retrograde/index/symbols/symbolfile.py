"""Symbols from a file: an ELF program (vmlinux) or a System.map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.index.symbols.elfpieces import Damaged, Elf
from retrograde.index.symbols.kallsyms import ANCHORS, Symbol
from retrograde.recording.folder import open_regular

_ELF: Final = b"\x7fELF"
_LINE: Final = re.compile(rb"^([0-9a-f]{8,16}) (\S) (\S+)", re.M)
_HINT: Final = "Give a vmlinux, another ELF file with a symbol table, or a System.map."

# st_info's type (gABI): no type, object, function; and binding: local.
_KINDS: Final = (0, 1, 2)
_LOCAL: Final = 0
_FIELDS: Final = {
    64: (
        *(("name", "u4"), ("info", "u1"), ("other", "u1"), ("section", "u2")),
        *(("value", "u8"), ("size", "u8")),
    ),
    32: (
        *(("name", "u4"), ("value", "u4"), ("size", "u4")),
        *(("info", "u1"), ("other", "u1"), ("section", "u2")),
    ),
}
"""Elf64_Sym and Elf32_Sym."""

_EXECUTABLE, _WRITABLE = 0x4, 0x1
_FIRST_RESERVED: Final = 0xFF00
_ABSOLUTE: Final = 0xFFF1


@dataclass(frozen=True)
class SymbolFile:
    """Symbols at the addresses they were linked at; sizes by address where the file has them.

    `note` is the ELF note with the program's build id as it lies in memory, `build_id` the
    id in hex; empty where there is none. `program` is how to find it in a guest's memory, where
    it is an ELF file.
    """

    name: str
    symbols: list[Symbol]
    sizes: dict[int, int]
    note: bytes = b""
    build_id: str = ""
    program: Elf | None = None

    @property
    def is_kernel(self) -> bool:
        """Whether they are those of a Linux kernel."""
        return any(symbol.name in ANCHORS for symbol in self.symbols)


def read_symbol_file(path: Path, *, elf_only: bool = False) -> SymbolFile:
    """Read the symbols in `path`; raises UsageError when it holds none."""
    try:
        with open_regular(path, follow=True) as file:
            is_elf = file.read(len(_ELF)) == _ELF
            if elf_only and not is_elf:
                raise UsageError(f"{path} is no ELF file.", _HINT)
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", _HINT) from error
    if is_elf:
        return _read_elf(path, data)
    symbols = [
        Symbol(int(address, 16), kind.decode("ascii", "replace"), name.decode("utf-8", "replace"))
        for address, kind, name in _LINE.findall(data)
    ]
    # Debian's System.map is one line, of type B, that says where the real one is.
    if len(symbols) < 2:
        raise UsageError(f"There are no symbols in {path}.", _HINT)
    return SymbolFile(path.name, sorted(symbols), {})


def _read_elf(path: Path, data: bytes) -> SymbolFile:
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            "Reading an ELF file needs the Python package pyelftools.",
            "Run: pip install 'retrograde[index]'",
        ) from error
    try:
        elf = ELFFile(BytesIO(data))
        table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
        found = list(_elf_symbols(elf, table)) if table else []
        program = Elf(path)
    except (Damaged, ELFError, ValueError, IndexError, KeyError) as error:
        said = f": {error}" if str(error) else ""
        raise UsageError(f"{path} is a damaged ELF file{said}.", _HINT) from error
    if not found:
        raise UsageError(f"{path} has no symbol table: it was stripped.", _HINT)
    symbols = sorted(symbol for symbol, _ in found)
    sizes = {symbol.address: size for symbol, size in found if size}
    return SymbolFile(path.name, symbols, sizes, program.note, program.build_id, program)


def _elf_symbols(elf: Any, table: Any) -> Iterator[tuple[Symbol, int]]:
    """Yield symbols and their sizes; by arrays, since pyelftools takes 10 s for a kernel."""
    order = "<" if elf.little_endian else ">"
    fields = _FIELDS[elf.elfclass]
    layout = np.dtype([(name, order + kind) for name, kind in fields])
    rows = np.frombuffer(table.data(), layout)
    rows = rows[np.isin(rows["info"] & 0xF, _KINDS) & (rows["name"] != 0) & (rows["section"] != 0)]
    names = elf.get_section(table["sh_link"]).data()
    letters = [_letter(section) for section in elf.iter_sections()]
    columns = (rows[name].tolist() for name in ("name", "info", "section", "value", "size"))
    for at, info, section, value, size in zip(*columns, strict=True):
        name = names[at : names.index(b"\0", at)].decode("utf-8", "replace")
        if section == _ABSOLUTE:
            letter = "A"
        elif section >= _FIRST_RESERVED or name.startswith("$"):
            continue  # common, or a mark of where code and data begin (Arm, RISC-V)
        else:
            letter = letters[section]
        letter = letter.lower() if info >> 4 == _LOCAL else letter
        yield Symbol(value, letter, name), size


def _letter(section: Any) -> str:
    flags = section["sh_flags"]
    if flags & _EXECUTABLE:
        return "T"
    if section["sh_type"] == "SHT_NOBITS":
        return "B"
    return "D" if flags & _WRITABLE else "R"
