"""The tables of the index: what their columns hold. The only place that says so.

Positions are signed 64-bit numbers, so that differences of them can be taken in SQL;
addresses and register values are unsigned. A column that may be NULL says when.

By its `source` a table is read out of the rr log, all of it at once and without a replay
("log"), made by replaying, interval by interval ("replay"), made of the guest kernel's
own table in memory or a file of symbols ("symbols"), or made by replaying for positions
and addresses somebody chose ("choice").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

POSITION: Final = "BIGINT"
ADDRESS: Final = "UBIGINT"

Source: TypeAlias = Literal["log", "replay", "symbols", "choice"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its type in DuckDB's SQL, and what it holds, with the unit.

    On disk it is the difference from the column `since`, where that is named: a fifth of
    the bytes.
    """

    name: str
    type: str
    meaning: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. Rows written under another `version` are removed and made anew.

    Raise `version` whenever a column is added or changes its meaning, or rows may be wrong.
    """

    name: str
    version: int
    source: Source
    meaning: str
    columns: tuple[Column, ...]


_ALL = (
    Table(
        "console",
        2,
        "log",
        "Lines on the first serial port, and on other ports that are kept.",
        (
            Column("position", POSITION, "when the first byte of the line had been written"),
            Column("last", POSITION, "when its last byte, the newline included, had been written"),
            Column("line", "INTEGER", "number of the line on its port, from 0"),
            Column("console_byte", POSITION, "index of its first byte among its port's"),
            Column(
                "text", "VARCHAR", "the line without its end; bytes that are no UTF-8 as U+FFFD"
            ),
            Column("port", "VARCHAR", "console, debugcon, semihosting or serialN"),
        ),
    ),
    Table(
        "interrupts",
        1,
        "log",
        "Interrupts taken. Which: `traps`.",
        (Column("position", POSITION, "of the instruction that runs after the delivery"),),
    ),
    Table(
        "exceptions",
        1,
        "log",
        "Exceptions taken: faults and traps (x86's SYSCALL instruction is none). Why: `traps`.",
        (Column("position", POSITION, "of the instruction that runs after the delivery"),),
    ),
    Table(
        "events",
        2,
        "log",
        "What came from outside the CPU: clocks, input, network, disks, bottom halves, resets.",
        (
            Column("position", POSITION, "instructions retired before the event"),
            Column(
                "kind", "VARCHAR", "QEMU's name in lower case, clock_host, net, block, …; or reset"
            ),
            Column("log_byte", POSITION, "byte in replay.log at which the event starts"),
            Column("device", "INTEGER", "serial port or network filter by number; else NULL"),
            Column(
                "value",
                POSITION,
                "clock_*: nanoseconds; block: number of the request; bh*: position at which it "
                "was scheduled; net: flags; random, char_read_all_error: result; else NULL",
            ),
            Column("data", "BLOB", "bytes received: characters, packet, random; else NULL"),
            Column("detail", "VARCHAR", "input: the key, button or move as JSON; else NULL"),
        ),
    ),
    Table(
        "calls",
        3,
        "replay",
        "Calls of functions.",
        (
            Column("position", POSITION, "of the call instruction"),
            Column("pc", ADDRESS, "address of the call instruction"),
            Column("target", ADDRESS, "address called"),
            Column(
                "return_position",
                POSITION,
                "of the first instruction after it returned; NULL: not in this interval",
                since="position",
            ),
            Column("depth", "INTEGER", "calls seen in the interval that it is inside of"),
            Column("sp", ADDRESS, "stack pointer before the call"),
            Column("space", ADDRESS, "address space: CR3, TTBR0_EL1, satp or PIDR"),
            *(Column(f"arg{n}", ADDRESS, f"argument register {n} of the ISA") for n in range(6)),
        ),
    ),
    Table(
        "blocks",
        2,
        "replay",
        "Code that ran in an interval, by translated block.",
        (
            Column("interval_first", POSITION, "first position of the interval"),
            Column("pc", ADDRESS, "address of the block's first instruction"),
            Column("size_bytes", "INTEGER", "bytes of code"),
            Column("instructions", "INTEGER", "instructions in it"),
            Column("first", POSITION, "when it ran first in the interval"),
            Column("last", POSITION, "when it ran last in the interval"),
            Column("count", "BIGINT", "how often it ran in the interval"),
        ),
    ),
    Table(
        "written",
        4,
        "replay",
        "Physical memory that was written in an interval.",
        (
            Column("interval_first", POSITION, "first position of the interval"),
            Column("page", ADDRESS, "physical address of a page of 4096 bytes"),
            Column("bitmap", "UBIGINT", "bit n set: bytes 64 n to 64 n + 63 were stored to"),
            Column(
                "device",
                "UBIGINT",
                "bit n set: they changed, and by no store: a device wrote them, or a page walk",
            ),
        ),
    ),
    Table(
        "writes",
        2,
        "choice",
        "Stores: all, or those to chosen addresses, at the positions chosen so far.",
        (
            Column("position", POSITION, "of the instruction that stored, or was interrupted"),
            Column("pc", ADDRESS, "its address; of what an interrupt pushes, the handler's"),
            Column("vaddr", ADDRESS, "virtual address stored to"),
            Column("paddr", ADDRESS, "physical address; NULL where QEMU could not tell"),
            Column("size", "INTEGER", "bytes, 1 to 16; what QEMU stores in parts is several rows"),
            Column("value", ADDRESS, "the number stored; of one of 16 bytes the low 64 bits"),
            Column("value_high", ADDRESS, "the high 64 bits of one of 16 bytes; else NULL"),
            Column(
                "beyond",
                ADDRESS,
                "physical address of the bytes in the next page; NULL: it does not cross into one",
            ),
        ),
    ),
    Table(
        "context",
        3,
        "replay",
        "Changes of address space and privilege.",
        (
            Column("position", POSITION, "of the first instruction after the change"),
            Column("kind", "VARCHAR", "space or privilege"),
            Column(
                "value",
                ADDRESS,
                "the new address space, or privilege level: x86's CPL, Arm's exception level, "
                "RISC-V's mode, Power's MSR.PR (1: user)",
            ),
        ),
    ),
    Table(
        "traps",
        1,
        "replay",
        "Interrupts and exceptions with their reasons, as far as they are certain "
        "([what is known](traps.md)).",
        (
            Column("position", POSITION, "of the instruction that runs after the delivery"),
            Column("kind", "VARCHAR", "interrupt or exception"),
            Column("name", "VARCHAR", "what the processor's manual calls it: #PF, data abort, …"),
            Column("vector", ADDRESS, "x86's vector, RISC-V's cause; Arm, Power: offset of it"),
            Column(
                "code",
                ADDRESS,
                "x86's error code, Arm's ESR, DFSR or IFSR, Power's DSISR or SRR1, and of an "
                "illegal instruction on RISC-V its bits; else NULL",
            ),
            Column("address", ADDRESS, "that could not be accessed; NULL: it was not about one"),
            Column("pc", ADDRESS, "where it came: the faulting instruction, else mostly the next"),
            Column("privilege", ADDRESS, "level there, as in `context`"),
        ),
    ),
    Table(
        "symbols",
        2,
        "symbols",
        "Functions and variables of the guest's kernel, and of user programs named.",
        (
            Column("address", ADDRESS, "virtual address, as it was in the recorded machine"),
            Column("size", ADDRESS, "bytes; of a kernel's own table up to the next symbol"),
            Column("name", "VARCHAR", "name"),
            Column("type", "VARCHAR", "letter as nm prints it: t, T code; d, D, b, B, r, R data"),
            Column("module", "VARCHAR", "kernel module or user program; NULL: the kernel itself"),
            Column("main", "BOOLEAN", "whether `functions` names this address by it; one each"),
            Column(
                "space", ADDRESS, "address space it is in, by its root table; NULL: in all of them"
            ),
            Column("first", POSITION, "from which position on it may be there; NULL: always"),
            Column("last", POSITION, "from which position on it is there no more; NULL: never"),
        ),
    ),
    Table(
        "intervals",
        2,
        "replay",
        "The intervals replayed so far.",
        (
            Column("first", POSITION, "first position"),
            Column("last", POSITION, "first position of the next interval"),
            Column("unplaced", "BIGINT", "stores missing in `written`: 0 in almost all"),
            Column("code", "UBIGINT", "digest of which blocks ran how often"),
        ),
    ),
)

TABLES: Final[Mapping[str, Table]] = {table.name: table for table in _ALL}
