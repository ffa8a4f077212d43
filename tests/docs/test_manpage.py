"""The manual page in the wheel is what the commands say of themselves."""

from __future__ import annotations

import runpy

from retrograde.cli.main import COMMANDS
from tests.docs.pages import ROOT

MAKER = runpy.run_path(str(ROOT / "docs" / "manpage.py"))


def test_it_is_as_the_commands_are_now() -> None:
    assert MAKER["PAGE"].read_text() == MAKER["page"](), "write it anew: ./dev docs"


def test_it_tells_all_commands_and_exit_codes() -> None:
    page = MAKER["page"]().replace("\\-", "-")
    for name in COMMANDS:
        assert f".SS retrograde {name} [OPTIONS]" in page
    for code in ("0", "1", "2", "3", "4", "70", "130", "141"):
        assert f"\\fB{code}\\fR" in page
