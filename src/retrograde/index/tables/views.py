"""Views over the index: what people ask for, put together from the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from retrograde.index.tables.tables import ADDRESS, POSITION, TABLES, Column


@dataclass(frozen=True, slots=True)
class View:
    """A view: its columns, and the query that makes it."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    query: str


class Call(NamedTuple):
    """A row of `functions`: a call, with what its columns say (docs/reference/tables.md)."""

    position: int
    name: str | None
    return_position: int | None
    instructions: int | None
    depth: int
    pc: int
    target: int
    sp: int
    space: int | None
    arg0: int | None
    arg1: int | None
    arg2: int | None
    arg3: int | None
    arg4: int | None
    arg5: int | None
    module: str | None


_CALLS = {column.name: column for column in TABLES["calls"].columns}
_ARGUMENTS = tuple(column for name, column in _CALLS.items() if name.startswith("arg"))
_ARGUMENT_NAMES = ", ".join(column.name for column in _ARGUMENTS)

# Of CR3 what names the root table (Intel SDM volume 3, 4.5): the rest are flags and a number.
ROOT_MASK: Final = 0x000F_FFFF_FFFF_F000

# A call leads to a function's first byte. The caller's name is not in it: to look for the
# function around every call costs a sort of all calls, also when only some are asked for.
_FUNCTIONS = f"""
    SELECT call.position, callee.name, call.return_position,
        call.return_position - call.position AS instructions, call.depth, call.pc,
        call.target, call.sp, call.space, {_ARGUMENT_NAMES}, callee.module
    FROM calls AS call
    LEFT JOIN (FROM symbols WHERE main) AS callee ON call.target = callee.address
        AND (callee.space IS NULL OR (callee.space = call.space & {ROOT_MASK}
            AND call.position >= callee.first AND call.position < callee.last))
"""

# Both take the caller's registers and the number (arch/x86/entry/common.c since 5.13,
# arch/arm64/kernel/syscall.c). The wrappers of the system calls themselves are called
# through a table, and with retpolines not by a call that tells where it leads.
_SYSCALLS = """
    SELECT position, arg1::INTEGER AS number, return_position, instructions, space,
        arg0 AS registers
    FROM functions WHERE name IN ('do_syscall_64', 'invoke_syscall')
"""

VIEWS: Final = (
    View(
        "functions",
        "`calls` with names.",
        (
            _CALLS["position"],
            Column("name", "VARCHAR", "function called; NULL when no symbol starts there"),
            _CALLS["return_position"],
            Column("instructions", POSITION, "from the call to its return; NULL: never"),
            *(_CALLS[name] for name in ("depth", "pc", "target", "sp", "space")),
            *_ARGUMENTS,
            Column("module", "VARCHAR", "user program or kernel module; NULL: the kernel, or none"),
        ),
        _FUNCTIONS,
    ),
    View(
        "syscalls",
        "System calls of Linux on x86_64 (5.13 and later) and aarch64.",
        (
            Column("position", POSITION, "of the call in the kernel's entry"),
            Column("number", "INTEGER", "of the system call: on x86_64 0 is read, 1 write, …"),
            _CALLS["return_position"],
            Column("instructions", POSITION, "until it returned; NULL: never"),
            _CALLS["space"],
            Column("registers", ADDRESS, "address of the caller's registers, struct pt_regs"),
        ),
        _SYSCALLS,
    ),
)
