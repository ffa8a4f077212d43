"""The table of traps against QEMU's own log of what it takes (`log int`), of the same replay."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retrograde.index.database import Database
from retrograde.index.tables.build import build
from retrograde.isa.isa import X86
from retrograde.machine.compat import qemu_for
from retrograde.machine.replayer import Replayer
from retrograde.recording.bundle import Recording
from retrograde.timeline.logfacts import LogFacts

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

LENGTH = 100_000
"""Positions compared: QEMU writes some 2 kB of each interrupt on x86."""

Said = dict[str, Any]

GUESTS = {
    # How many deliveries have no reason: by their vector's gate not being there, two at one
    # position, or a call of what QEMU is itself.
    ("x86_64", "exceptions"): ("#BP|#DB|#DE|#GP|#NP|#PF|#UD", 0.05),
    ("x86_64", "syscall"): ("#GP", 0.01),
    ("i386", "frames"): ("#GP", 0.01),
    ("aarch64", "faults"): ("brk|data abort|instruction abort|svc|undefined instruction|IRQ", 0.01),
    ("arm", "faults"): ("data abort|prefetch abort|svc|undefined instruction", 0.01),
    ("riscv64", "faults"): ("breakpoint|ecall from M|ecall from U|illegal instruction", 0),
    ("riscv32", "faults"): ("fetch access fault|load access fault|store access fault", 0),
    ("ppc64", "faults"): (
        "alignment|data segment|data storage|decrementer|instruction segment|program|system call",
        0.03,
    ),
}

_X86 = re.compile(r"^ *\d+: v=(\w+) e=(\w+) i=(\d) cpl=(\d) IP=\w+:(\w+) .* \S+=(\w+)$")
_ARM = re.compile(r"^Taking exception (\d+) \[(.+)\] on CPU 0$")
_DETAIL = re.compile(r"^\.\.\.(?:from EL(\d)|with (\w+) (\S+)(?: \w+ (\w+))?)")
_RISCV = re.compile(r"^riscv_cpu_do_interrupt: .*async:(\d), cause:(\w+), epc:(\w+), tval:(\w+)")
_POWER = re.compile(r"^Raise exception at (\w+) => (\w+) \(\d+\) error=(\w+)$")
_VECTORS = {"Undefined Instruction": 4, "SVC": 8, "Prefetch Abort": 12, "Data Abort": 16}
_POWER_VECTORS = {
    name: int(vector, 16)
    for vector, name in re.findall(
        r"(\w+) (\w+)",
        "200 MCHECK 300 DSI 380 DSEG 480 ISEG 600 ALIGN 700 PROGRAM 700 HV_EMU 800 FPU 900 DECR "
        "C00 SYSCALL",
    )
}


def said_of_x86(lines: list[str]) -> Iterator[Said]:
    for match in filter(None, map(_X86.match, lines)):
        vector, code, called, level, pc, address = (int(one, 16) for one in match.groups())
        said = {"vector": vector, "code": code, "privilege": level, "pc": pc}
        yield said | {"address": address, "is_called": bool(called)}


def said_of_arm(lines: list[str]) -> Iterator[Said]:
    said: Said = {}
    for line in [*lines, "Taking exception 0 [end] on CPU 0"]:
        if match := _ARM.match(line):
            if said:
                yield said
            said = {"kind": match[2]}
        elif said and (match := _DETAIL.match(line)):
            level, name, first, second = match.groups()
            if level:
                said["privilege"] = int(level)
            elif name in ("ESR", "DFSR", "IFSR"):
                said["code" if name == "ESR" else "status"] = int(first.split("/")[-1], 16)
                said |= {"address": int(second, 16)} if second else {}
            else:
                said |= {{"FAR": "address", "ELR": "pc"}.get(name, name): int(first, 16)}


def said_of_riscv(lines: list[str]) -> Iterator[Said]:
    for match in filter(None, map(_RISCV.match, lines)):
        late, cause, pc, value = (int(one, 16) for one in match.groups())
        yield {"vector": cause, "pc": pc, "address": value, "code": value, "late": late}


def said_of_power(lines: list[str]) -> Iterator[Said]:
    for match in filter(None, map(_POWER.match, lines)):
        yield {"pc": int(match[1], 16), "vector": _POWER_VECTORS[match[2]]}


def expected_of(target: str, said: Said, row: Any) -> Said:
    """Return what a row with a reason must have, of the fields that QEMU says."""
    if target in X86:
        expected = {name: said[name] for name in ("vector", "privilege", "pc")}
        if said["is_called"]:  # QEMU says where it is, `int n` or `int3`
            expected["pc"] += 1 if row.name == "#BP" else 2
        if row.code is not None:
            expected["code"] = said["code"]
        if said["vector"] == 14:
            expected["address"] = said["address"]
        if row.kind == "exception" and not said["is_called"]:
            assert row.name.startswith("#"), row
        return expected
    if target == "aarch64":
        expected = {name: said[name] for name in ("pc", "privilege", "address") if name in said}
        return expected | ({} if said["kind"] == "IRQ" else {"code": said["code"]})
    if target == "arm":
        status = {"code": said["status"]} if "status" in said else {}
        address = {"address": said["address"]} if "address" in said else {}
        return {"vector": _VECTORS[said["kind"]]} | status | address
    if target == "ppc64":
        behind = 4 if said["vector"] == 0xC00 else 0  # SRR0 is that of the next instruction
        return {"vector": said["vector"], "pc": said["pc"] + behind}
    expected = {"vector": said["vector"], "pc": said["pc"]}
    about = row.vector in (1, 5, 7) and row.kind == "exception"
    expected["address"] = said["address"] if about else None
    return expected | {"code": said["code"] if row.name == "illegal instruction" else None}


async def log_of_qemu(recording: Recording, log: Path, first: int, last: int) -> list[str]:
    """Replay `recording` and return what QEMU says of interrupts and exceptions in between."""
    async with await Replayer.start(recording, qemu_for(recording)) as replayer:
        await replayer.run_to(first)
        assert not await replayer.monitor.human(f"logfile {log}")
        assert not await replayer.monitor.human("log int")
        await replayer.run_to(last)
    return log.read_text().splitlines()


@pytest.mark.parametrize(("target", "guest"), GUESTS)
def test_reasons_are_those_qemu_gives(
    recorded: Callable[..., Recording], tmp_path: Path, target: str, guest: str
) -> None:
    recording = recorded(guest, target)
    asyncio.run(build(recording, tables=["traps"]))
    facts = LogFacts.read(recording.log())
    with Database(recording) as database:
        rows = database.query("FROM traps ORDER BY position").all()
        where = "FROM console WHERE text LIKE '%-START'"
        (start,) = database.query(f"SELECT position {where}").all()
    assert len(rows) == len(facts.taken)
    # QEMU says nothing of what is taken in x86's real mode, as the firmware has it.
    first = facts.clear_from(start.position)
    last = min(facts.clear_from(first + LENGTH), recording.end)
    rows = [row for row in rows if first < row.position < last]
    lines = asyncio.run(log_of_qemu(recording, tmp_path / "int.log", first, last))
    reader = {"x86_64": said_of_x86, "i386": said_of_x86, "ppc64": said_of_power}
    reader |= {"aarch64": said_of_arm, "arm": said_of_arm}
    said = list(reader.get(target, said_of_riscv)(lines))[: len(rows)]
    known = [(row, one) for row, one in zip(rows, said, strict=True) if row.vector is not None]
    for row, one in known:
        expected = expected_of(target, one, row)
        unknown = {"pc"} if target == "arm" and row.vector == 4 else set()
        for name, value in expected.items():
            assert name in unknown or getattr(row, name) == value, (row, one)
    names, missing = GUESTS[target, guest]
    assert set(names.split("|")) <= {row.name for row, _ in known}
    assert len(rows) - len(known) <= missing * len(rows) < len(rows) / 10
