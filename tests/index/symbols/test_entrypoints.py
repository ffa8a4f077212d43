"""How far a kernel was moved, as its handlers of exceptions tell."""

from __future__ import annotations

import pytest

from retrograde.index.symbols.entrypoints import moved_by

LINKED = {"asm_exc_page_fault": 0x81000100, "asm_exc_divide_error": 0x81000200}


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        ({"asm_exc_page_fault": 0x91000100, "asm_exc_divide_error": 0x91000200}, 0x10000000),
        ({"asm_exc_page_fault": 0x81000100, "asm_exc_divide_error": 0x81000200}, 0),
        ({"asm_exc_page_fault": 0x91000100, "asm_exc_divide_error": 0x91000208}, None),
        ({"asm_exc_page_fault": 0x91000100, "divide_error": 0x91000200}, None),  # one only
        ({"asm_exc_page_fault": 0x91000108, "asm_exc_divide_error": 0x91000208}, None),
        ({}, None),
    ],
)
def test_they_must_agree(ran: dict[str, int], expected: int | None) -> None:
    assert moved_by(ran, LINKED) == expected
