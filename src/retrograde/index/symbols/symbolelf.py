"""A symbol table as an ELF file, for a debugger: what a kernel says of itself in its memory.

The names come from a guest, which may be a stranger's: what is no plain name is left out.
gABI, "Object Files"; Pure: symbols in, bytes out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

from retrograde.index.symbols.kallsyms import Symbol

_MACHINES: Final = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
"""e_machine of targets whose kernels are 64-bit and little-endian."""
_NAME: Final = re.compile(r"[\w.$]{1,512}", re.ASCII)

_HEAD: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_EXECUTABLE, _ABSOLUTE = 2, 0xFFF1
_SYMTAB, _STRTAB, _NOBITS = 2, 3, 8
_ALLOCATED_CODE = 6
_SECTION_NAMES: Final = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"


def symbol_elf(target: str, symbols: Iterable[Symbol]) -> bytes | None:
    """Return an ELF file with these symbols where they are; None where there are none.

    None also for targets other than x86_64, aarch64 and riscv64.
    """
    named = sorted(one for one in symbols if _NAME.fullmatch(one.name))
    code = [one.address for one in named if one.type in "TtWw"]
    if target not in _MACHINES or not code:
        return None
    names, rows = bytearray(b"\0"), bytearray(_SYMBOL.size)
    for one in named:
        is_code = one.type in "TtWw"
        kind, section = (2, 1) if is_code else (1, _ABSOLUTE)  # a function; an object
        rows += _SYMBOL.pack(len(names), 1 << 4 | kind, 0, section, one.address, 0)
        names += one.name.encode() + b"\0"
    at_rows = _HEAD.size
    at_names, at_section_names = at_rows + len(rows), at_rows + len(rows) + len(names)
    at_sections = at_section_names + len(_SECTION_NAMES)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    head = _HEAD.pack(
        *(ident, _EXECUTABLE, _MACHINES[target], 1, 0, 0, at_sections),
        *(0, _HEAD.size, 0, 0, _SECTION.size, 5, 4),
    )
    size = code[-1] + 1 - code[0]
    sections = (
        (0,) * 10,
        (1, _NOBITS, _ALLOCATED_CODE, code[0], at_rows, size, 0, 0, 16, 0),
        (7, _SYMTAB, 0, 0, at_rows, len(rows), 3, 1, 8, _SYMBOL.size),
        (15, _STRTAB, 0, 0, at_names, len(names), 0, 0, 1, 0),
        (23, _STRTAB, 0, 0, at_section_names, len(_SECTION_NAMES), 0, 0, 1, 0),
    )
    packed = b"".join(_SECTION.pack(*one) for one in sections)
    return b"".join((head, rows, names, _SECTION_NAMES, packed))
