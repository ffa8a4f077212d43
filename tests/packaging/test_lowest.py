"""Every requirement says from which version on it will do; `./dev lowest` tries these."""

from __future__ import annotations

import tomllib

import pytest

from tests.packaging.lowest import PROJECTS, lowest


def test_of_our_distributions() -> None:
    ours, qemu_test = (set(lowest(tomllib.loads(file.read_text())["project"])) for file in PROJECTS)
    names = {line.partition("==")[0] for line in ours}
    assert {"click", "numpy", "duckdb", "capstone", "distributed", "pytest"} <= names
    # pip takes one lowest version of a package.
    assert {line for line in qemu_test if line.partition("==")[0] in names} <= ours


@pytest.mark.parametrize("line", ["one", "one<2", "one==1"])
def test_a_requirement_without_one(line: str) -> None:
    with pytest.raises(ValueError, match="no lowest version"):
        list(lowest({"dependencies": [line]}))
