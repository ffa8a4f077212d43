"""An ELF file of symbols alone, as pyelftools and a real gdb read it."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from retrograde.index.symbols.kallsyms import Symbol
from retrograde.index.symbols.symbolelf import symbol_elf

BASE = 0xFFFF_FFFF_9540_0000
SYMBOLS = [
    Symbol(BASE, "T", "_stext"),
    Symbol(BASE + 0x100, "t", "do_exit"),
    Symbol(BASE + 0x80_0000, "D", "jiffies"),
    Symbol(BASE + 0x200, "T", "last_one"),
]
HOSTILE = [Symbol(BASE + 1, "T", name) for name in ("\x1b]0;t\x07", "a b", "", "\u202e", "x" * 600)]


@pytest.mark.parametrize("target", ["x86_64", "aarch64", "riscv64"])
def test_every_symbol_where_it_is_and_no_strange_name(target: str) -> None:
    made = symbol_elf(target, SYMBOLS + HOSTILE)
    assert made is not None
    table = ELFFile(BytesIO(made)).get_section_by_name(".symtab")
    found = {(one.name, one["st_value"]) for one in table.iter_symbols() if one.name}
    assert found == {(one.name, one.address) for one in SYMBOLS}


def test_nothing_to_tell() -> None:
    assert symbol_elf("x86_64", []) is None
    assert symbol_elf("x86_64", HOSTILE) is None
    assert symbol_elf("m68k", SYMBOLS) is None


@pytest.mark.gdb
@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_knows_code_and_data(tmp_path: Path) -> None:
    made = symbol_elf("x86_64", SYMBOLS)
    assert made is not None
    (tmp_path / "kernel").write_bytes(made)
    lines = (f"info symbol {BASE + 0x104:#x}", "p &jiffies", "info line do_exit")
    words = [word for line in lines for word in ("-ex", line)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", tmp_path / "kernel", *words], capture_output=True, text=True
    )
    assert "do_exit + 4 in section .text" in done.stdout
    assert f"{BASE + 0x80_0000:#x} <jiffies>" in done.stdout or hex(BASE + 0x80_0000) in done.stdout
