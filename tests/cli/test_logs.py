"""What is said beside an answer."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORGETS = """
import asyncio, sys
from retrograde.cli.main import guarded
from retrograde.errors import UsageError

async def fail():
    raise OSError("nobody waits for this")

async def work():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)

def action():
    asyncio.run(work())
    if sys.argv[1] == "fails":
        raise UsageError("It failed.")

guarded(action, show_traceback="--debug" in sys.argv)
"""


@pytest.mark.parametrize(
    ("words", "status", "is_told"),
    [(("works",), 0, True), (("fails",), 2, False), (("fails", "--debug"), 2, True)],
)
def test_what_an_error_left_behind_is_told_where_it_is_news(words, status, is_told):
    words = [sys.executable, "-c", FORGETS, *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("never retrieved" in done.stderr) == is_told
    assert ("It failed." in done.stderr) == (status != 0)
