import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.errors import PositionError
from retrograde.position import format_position, parse_position

END = 2_000_000_000
CONSOLE = {"Kernel panic": 1_500_000_000, "plain": 7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1234567", 1_234_567),
        ("1_234_567", 1_234_567),
        ("1.2G", 1_200_000_000),
        ("1.5k", 1_500),
        ("3M", 3_000_000),
        ("50%", 1_000_000_000),
        ("0.5%", 10_000_000),
        ("100%", END),
        ("start", 0),
        ("end", END),
        ("end-1000", END - 1000),
        ("end - 1.5M", END - 1_500_000),
        ('console:"Kernel panic"', 1_500_000_000),
        ("console:Kernel panic", 1_500_000_000),
        ("console:plain", 7),
        ("  12  ", 12),
    ],
)
def test_accepted_forms(text: str, expected: int) -> None:
    assert parse_position(text, END, CONSOLE.get) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "-1", "1.23", "1..2G", "1_", "2.0000000001G", "101%", "3G", "end-3G", "end-",
        "end+1", "console:", 'console:""', "console:absent", "1e9", "0x10", "1 2",
    ],
)  # fmt: skip
def test_refused_forms(text: str) -> None:
    with pytest.raises(PositionError) as caught:
        parse_position(text, END, CONSOLE.get)
    assert caught.value.what
    assert caught.value.remedy
    assert caught.value.exit_code == 2


@given(st.integers(min_value=0, max_value=2**63))
def test_printed_positions_parse_back(position: int) -> None:
    assert parse_position(format_position(position), position, CONSOLE.get) == position


@given(st.text())
def test_any_text_gives_a_position_or_a_position_error(text: str) -> None:
    with contextlib.suppress(PositionError):
        assert 0 <= parse_position(text, END, CONSOLE.get) <= END
