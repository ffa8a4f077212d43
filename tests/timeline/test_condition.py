"""Conditions as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.errors import UsageError
from retrograde.machine.probe.request import COMPARISONS, WORD, Condition
from retrograde.timeline.condition import parse_conditions

REGISTERS = ("rax", "rdi", "rip", "eflags", "k0", "fs_base")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rax == 5", [Condition("rax", "==", 5)]),
        ("$rax==0x_ff", [Condition("rax", "==", 0xFF)]),
        ("  fs_base>=1_000 ", [Condition("fs_base", ">=", 1000)]),
        ("rax < -1", [Condition("rax", "<", WORD)]),
        ("rax == 010", [Condition("rax", "==", 10)]),
        ("[16] != 0", [Condition(16, "!=", 0)]),
        (
            "rdi & 0xff != 3 and [0xffffffff82000000]:4 > 7",
            [Condition("rdi", "!=", 3, mask=0xFF), Condition(0xFFFFFFFF82000000, ">", 7, size=4)],
        ),
        (
            "[ 0x10 ] : 2 & 3 <= 1 && k0 == 0",
            [Condition(16, "<=", 1, mask=3, size=2), Condition("k0", "==", 0)],
        ),
    ],
)
def test_what_people_write(text, expected):
    assert parse_conditions(text, REGISTERS) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "missing at its end"),
        ("rax", "missing at its end"),
        ("rax ==", "missing at its end"),
        ("rax = 5", "'=' is not one of"),
        ("rax == rdi", "'rdi' is not the number to compare with"),
        ("rax == 5 or rdi == 3", "only `and`"),
        ("rax == 5 rdi == 3", "only `and`"),
        ("rax == 5 and", "missing at its end"),
        ("rbx == 5", "no register 'rbx'"),
        ("rip == 5", "says what rip is"),
        ("[5 == 5", "not closed"),
        ("[5]:9 == 5", "9 bytes"),
        ("[5]:0 == 5", "0 bytes"),
        ("rax == 0x10000000000000000", "64 bits"),
        ("rax == -9223372036854775809", "64 bits"),
        ("rax == 12ab", "no meaning|not the number|only"),
        ("rax == 1__", "not the number|no meaning"),
        ("rax + 1 == 5", "'\\+' has no meaning"),
        ("rax == 5;", "';' has no meaning"),
        ("rax == \u0665", "no meaning|not the number"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        parse_conditions(text, REGISTERS)


@given(st.text(alphabet="rax di&[]:<>=!0x1f-_ and|$", max_size=40))
def test_any_text_parses_or_is_refused(text):
    try:
        conditions = parse_conditions(text, REGISTERS)
    except UsageError:
        return
    for condition in conditions:
        assert condition.operand in REGISTERS or isinstance(condition.operand, int)
        assert 0 <= condition.value <= WORD
        assert 0 <= condition.mask <= WORD


words = st.integers(0, WORD)
conditions = st.one_of(
    st.builds(
        Condition,
        st.sampled_from(["rax", "rdi", "k0"]),
        st.sampled_from(COMPARISONS),
        words,
        words,
    ),
    st.builds(Condition, words, st.sampled_from(COMPARISONS), words, words, size=st.integers(1, 8)),
)


@given(st.lists(conditions, min_size=1, max_size=4))
def test_what_is_written_out_is_read_back(made):
    def text(one):
        left = one.operand if isinstance(one.operand, str) else f"[{one.operand:#x}]:{one.size}"
        return f"{left} & {one.mask:#x} {one.comparison} {one.value}"

    assert parse_conditions(" and ".join(map(text, made)), REGISTERS) == tuple(made)
