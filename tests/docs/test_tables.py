"""The page of tables says what the code says."""

from __future__ import annotations

from tests.docs.tables import PAGE, expected


def test_the_page_of_tables_is_up_to_date() -> None:
    assert PAGE.read_text() == expected(), "python -m tests.docs.tables writes it anew"
