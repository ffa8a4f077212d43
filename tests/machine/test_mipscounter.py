"""Which instructions of MIPS have a delay slot."""

from __future__ import annotations

import pytest

from retrograde.machine.mipscounter import is_branch


@pytest.mark.parametrize(
    "word",
    [
        0x08000000,  # j
        0x0C000000,  # jal
        0x10A00003,  # beq
        0x1440FFF8,  # bne
        0x1C400001,  # bgtz
        0x54400001,  # bnel
        0x03E00008,  # jr ra
        0x0040F809,  # jalr v0
        0x04110001,  # bal
        0x45010002,  # bc1t
    ],
)
def test_branches(word):
    assert is_branch(word)


@pytest.mark.parametrize("word", [0x00000000, 0x24420001, 0xAC480000, 0x42000018, 0x44080000])
def test_others(word):
    assert not is_branch(word)  # nop, addiu, sw, eret, mfc1
