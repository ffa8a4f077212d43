"""Interrupts and exceptions in words and columns, of what the probe may say of them."""

from __future__ import annotations

import numpy as np
import pytest

from retrograde.machine.probe.page import TRAP, TrapFlag
from retrograde.machine.traps import Kind, columns_of, trap_of

VECTOR, CODE, ADDRESS = TrapFlag.VECTOR, TrapFlag.CODE, TrapFlag.ADDRESS
PC, PRIVILEGE, CALLED = TrapFlag.PC, TrapFlag.PRIVILEGE, TrapFlag.CALLED
ALL = VECTOR | CODE | ADDRESS | PC | PRIVILEGE


def row(known: TrapFlag, vector: int = 0, code: int = 0, number: int = 0) -> np.void:
    """Return a record of the probe; address, pc and level are always the same."""
    rows = np.array([(77, number, vector, code, 0x40, 0x1000, 3, known)], TRAP)
    return rows[0]


@pytest.mark.parametrize(
    ("target", "kind", "record", "text"),
    [
        (
            "x86_64",
            "exception",
            row(ALL, 14, 2),
            "#PF, code 0x2, address 0x40, from 0x1000 at level 3",
        ),
        ("i386", "exception", row(VECTOR | CALLED, 14), "int 0xe"),
        ("x86_64", "exception", row(VECTOR, 0x80), "int 0x80"),
        ("x86_64", "interrupt", row(VECTOR | PC, 14), "interrupt 0xe, from 0x1000"),
        ("x86_64", "exception", row(PC), "exception whose reason is not known, from 0x1000"),
        ("x86_64", "interrupt", row(TrapFlag(0)), "interrupt whose reason is not known"),
        (
            "aarch64",
            "exception",
            row(VECTOR | CODE, 0x200, 0x96000010),
            "data abort, code 0x96000010",
        ),
        ("aarch64", "interrupt", row(VECTOR, 0x280), "IRQ"),
        (
            "aarch64",
            "exception",
            row(VECTOR | CODE, 0x200, 0x3E << 26),
            "exception 0x200, code 0xf8000000",
        ),
        ("arm", "exception", row(VECTOR, 8), "svc"),
        ("riscv64", "interrupt", row(VECTOR, 7), "machine timer interrupt"),
        ("riscv32", "exception", row(VECTOR, 7), "store access fault"),
        ("ppc64", "interrupt", row(VECTOR, 0x900), "decrementer"),
    ],
)
def test_in_words(target: str, kind: Kind, record: np.void, text: str) -> None:
    assert str(trap_of(record, kind, target)) == text


def test_columns_have_a_row_for_each_delivery_and_null_for_what_is_not_known() -> None:
    rows = np.array([row(ALL, 14, 2, number=2), row(VECTOR, 0x20, number=1)], TRAP)
    positions = np.array([5, 77, 77], np.uint64)
    kinds = np.array([True, False, True])
    columns = columns_of(rows, positions, kinds, "x86_64")
    assert columns["position"].tolist() == [5, 77, 77]
    assert columns["kind"].tolist() == ["exception", "interrupt", "exception"]
    assert columns["name"].tolist() == [None, None, "#PF"]
    assert columns["vector"].tolist() == [None, 0x20, 14]
    assert columns["code"].tolist() == [None, None, 2]
    assert columns["pc"].tolist() == [None, None, 0x1000]
