"""Layout of the page shared with the probe: probe/probe_page.h in numpy's words.

Pure description; change one side, change the other and both PAGE_VERSIONs.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

import numpy as np

PAGE_MAGIC: Final = 0x65626F72706F7472
PAGE_VERSION: Final = 6
HEADER_BYTES: Final = 4096
NAME_BYTES: Final = 32
LINE_BYTES: Final = 64
"""A line of physical memory, the unit in which `written` tells what was stored to."""
PAGE_BYTES: Final = 4096
"""64 lines: one word of `written`."""
MOST_BYTES: Final = 16
"""Of one access, at most; what moves more makes several."""
NOWHERE: Final = (1 << 64) - 1
"""For a physical address that is not known, or of what there is not."""
FOREVER: Final = (1 << 64) - 1
"""`until` of a span without an end."""
MOMENT_PAGES: Final = 40
"""Pages of memory that one moment has, at most."""


class Feature(IntFlag):
    """What the probe compiles into the guest's translated code."""

    COUNT = 1
    BREAK = 2
    WATCH = 4
    WRITES = 8
    STEPS = 16
    REGISTERS = 32
    AUDIT = 64
    BLOCKS = 128
    WRITTEN = 256
    CALLS = 512
    CONTEXT = 1024
    MOMENTS = 2048
    MEMORY = 4096
    TRAPS = 8192


class RecordFlag(IntFlag):
    """Bits of a record's `flags`."""

    STORE = 1
    IO = 2
    """A device answered some of it; there `paddr` is its address on the bus."""
    ATTEMPT = 4
    """The instruction faulted: it began at this position and did not retire."""
    NO_PADDR = 8
    """QEMU could not tell the physical address of some of it: that is NOWHERE."""
    ACCESS = 16
    """A memory access; clear for a breakpoint."""
    DELIVERY = 32
    """Pushed by an interrupt or exception, not an instruction; `pc` is the handler's."""
    BIG_ENDIAN = 64
    """The first byte of the number that was moved is its highest."""


AREA = np.dtype([("offset", "u8"), ("capacity", "u8"), ("total", "u8")])

TABLES: Final = (
    *("exceptions", "deliveries", "breakpoints", "watches", "conditions", "registers"),
    *("expressions", "code"),
)
RINGS: Final = ("hits", "writes", "steps", "changes")
COVERED: Final = ("blocks", "written", "touched", "calls", "contexts", "traps")
"""Tables the probe fills from their beginning (probe.coverage)."""
MOMENTS: Final = ("chosen", "ram", "seen", "moments", "moment_registers", "moment_pages")

HEADER = np.dtype(
    [
        *[(name, "u8") for name in ("magic", "version", "bytes", "generation", "features")],
        *[(name, "u8") for name in ("from", "until", "big_endian")],
        *[(name, AREA) for name in (*TABLES, *RINGS, *COVERED, *MOMENTS)],
        *[(name, "u8") for name in ("kept_registers", "kept_bytes", "pointers")],
        *[(name, "u8") for name in ("epoch", "kept_loads", "loaded", "api", "drops_code")],
        *[(name, "u8") for name in ("active_generation", "active_from", "unknown_register")],
        ("registers_doubtful", "u8"),
        *[(name, "u8") for name in ("translated", "deliveries_missed", "faults", "reruns")],
        *[(name, "u8") for name in ("surprises", "surprise_position")],
        ("surprise_drift", "i8"),
        *[(name, "u8") for name in ("audited", "audit_errors", "audit_position")],
        *[(name, "u8") for name in ("unplaced", "overflows")],
    ]
)

BREAKPOINT = np.dtype(
    [
        ("pc", "u8"),
        *[(name, "u4") for name in ("first_condition", "conditions")],
        *[(name, "u4") for name in ("first_expression", "expressions")],
    ]
)
EXPRESSION = np.dtype([("offset", "u4"), ("size", "u4")])
WATCH = np.dtype([("first", "u8"), ("last", "u8"), ("access", "u4"), ("physical", "u4")])
CONDITION = np.dtype(
    [
        *[(name, "u8") for name in ("mask", "value", "address")],
        ("reg", "u4"),
        ("comparison", "u2"),
        ("in_memory", "u1"),
        ("size", "u1"),
    ]
)

RECORD = np.dtype(
    [
        *[(name, "u8") for name in ("position", "pc", "vaddr", "paddr", "beyond")],
        ("data", "u1", (MOST_BYTES,)),
        *[("size", "u2"), ("flags", "u2"), ("which", "u4")],
    ]
)
"""A breakpoint reached or memory accessed: `pc` and `vaddr` are linear addresses, `size`
is in bytes, `data` what was read or written in the order of memory. `beyond` is the physical
address of what is in the next page, NOWHERE where the access does not cross into it."""

STEP = np.dtype([("position", "u8"), ("pc", "u8")])
CHANGE = np.dtype(
    [
        ("position", "u8"),
        *[(name, "u2") for name in ("reg", "slice", "size", "unused")],
        ("bytes", "V16"),
    ]
)
"""Bytes [16*slice, 16*slice+size) of register number `reg` of the armed list, which have
this value from `position` on, in the guest's byte order. Numbers behind those of the list are
of the pages in `seen`: 8 bytes in the host's order, the physical address or NOWHERE."""

BLOCK = np.dtype(
    [
        *[(name, "u8") for name in ("pc", "first", "last", "count")],
        *[(name, "u4") for name in ("size", "instructions")],
    ]
)
"""Instructions that ran from the first at linear address `pc` to the last, `count` times,
the first and the last time from these positions."""

CALL = np.dtype(
    [
        *[(name, "u8") for name in ("position", "pc", "target", "returned", "sp", "space")],
        ("arguments", "u8", (6,)),
        *[(name, "u4") for name in ("depth", "unused")],
    ]
)
"""A call: see probe_page.h."""

CONTEXT = np.dtype(
    [*[(name, "u8") for name in ("position", "value")], ("kind", "u4"), ("initial", "u4")]
)
"""From `position` on, `kind` (0 the address space, 1 the privilege level) has this value;
`initial` when it had it before, too."""


class TrapFlag(IntFlag):
    """Bits of a trap's `known`: the fields that say something."""

    VECTOR = 1
    CODE = 2
    ADDRESS = 4
    PC = 8
    PRIVILEGE = 16
    CALLED = 32
    """Not a field: on x86 an `int` with this vector stands before where the trap came."""


TRAP = np.dtype(
    [
        *[(name, "u8") for name in ("position", "number", "vector", "code", "address")],
        *[(name, "u8") for name in ("pc", "privilege", "known")],
    ]
)
"""Why an interrupt or exception was taken: see probe_page.h."""

RANGE = np.dtype([("first", "u8"), ("last", "u8")])

MOMENT = np.dtype(
    [
        *[(name, "u8") for name in ("position", "pc", "before", "after", "pages")],
        ("page", [("vaddr", "u8"), ("number", "u8")], (MOMENT_PAGES,)),
    ]
)
"""What the machine is like at a hit: see probe_page.h."""

ELEMENT: Final = {
    "exceptions": np.dtype("u8"),
    "deliveries": np.dtype("u8"),
    "breakpoints": BREAKPOINT,
    "watches": WATCH,
    "conditions": CONDITION,
    "registers": np.dtype(f"S{NAME_BYTES}"),
    "expressions": EXPRESSION,
    "code": np.dtype("u1"),
    "hits": RECORD,
    "writes": RECORD,
    "steps": STEP,
    "changes": CHANGE,
    "blocks": BLOCK,
    "written": np.dtype("u8"),
    "touched": np.dtype("u8"),
    "calls": CALL,
    "contexts": CONTEXT,
    "traps": TRAP,
    "chosen": np.dtype("u8"),
    "ram": RANGE,
    "seen": np.dtype("u8"),
    "moments": MOMENT,
    "moment_registers": np.dtype("u1"),
    "moment_pages": np.dtype(f"V{PAGE_BYTES}"),
}
