"""Views over the index: what people ask for, put together from the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from retrograde.index.tables import ADDRESS, POSITION, TABLES, Column


@dataclass(frozen=True, slots=True)
class View:
    """A view: its columns, and the query that makes it."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    query: str


_CALLS = {column.name: column for column in TABLES["calls"].columns}
_ARGUMENTS = tuple(column for name, column in _CALLS.items() if name.startswith("arg"))
_ARGUMENT_NAMES = ", ".join(column.name for column in _ARGUMENTS)

# A call leads to a function's first byte; the call itself lies anywhere in one.
_FUNCTIONS = f"""
    SELECT call.position, callee.name, caller.name AS caller, call.return_position,
        call.return_position - call.position AS instructions, call.depth, call.pc,
        call.target, call.sp, call.space, {_ARGUMENT_NAMES}
    FROM calls AS call
    LEFT JOIN (FROM symbols WHERE main) AS callee ON call.target = callee.address
    ASOF LEFT JOIN (FROM symbols WHERE main) AS caller ON call.pc >= caller.address
"""

# Since 4.17 Linux has a wrapper of such a name for each system call, which takes the
# registers as they were at the entry (SYSCALL_DEFINEx in include/linux/syscalls.h).
_WRAPPER = r"__(x64|ia32|arm64|riscv|s390x?|powerpc)_(compat_)?sys_(\w+)"

_SYSCALLS = rf"""
    SELECT position, regexp_extract(name, '^{_WRAPPER}$', 3) AS name, return_position,
        instructions, space, arg0 AS registers
    FROM functions WHERE regexp_matches(name, '^{_WRAPPER}$')
"""

VIEWS: Final = (
    View(
        "functions",
        "`calls` with names.",
        (
            _CALLS["position"],
            Column("name", "VARCHAR", "function called; NULL when no symbol starts there"),
            Column("caller", "VARCHAR", "symbol at or before the call instruction"),
            _CALLS["return_position"],
            Column("instructions", POSITION, "from the call to its return; NULL: never"),
            *(_CALLS[name] for name in ("depth", "pc", "target", "sp", "space")),
            *_ARGUMENTS,
        ),
        _FUNCTIONS,
    ),
    View(
        "syscalls",
        "System calls of Linux 4.17 and later, by their wrappers in the kernel.",
        (
            Column("position", POSITION, "of the call of the wrapper"),
            Column("name", "VARCHAR", "system call: read, openat, …"),
            _CALLS["return_position"],
            Column("instructions", POSITION, "until it returned; NULL: never"),
            _CALLS["space"],
            Column("registers", ADDRESS, "address of the caller's registers, struct pt_regs"),
        ),
        _SYSCALLS,
    ),
)
