"""What is looked at after a disturbed command, and the columns of the table of results."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection
from dataclasses import dataclass, field

from tests.command import Done
from tests.faults.commands import Command
from tests.faults.place import Place

HANG, ORPHAN, LEFTOVER, ANSWER, LOSS, TRACEBACK, CODE = COLUMNS = (
    "hangs",
    "orphans",
    "leftovers",
    "wrong answers",
    "losses",
    "tracebacks",
    "wrong exit codes",
)

ENDED = {128 + number: signal.Signals(number).name for number in (1, 2, 15)}
"""Exit codes of commands that were told to end."""

_NOISE = re.compile(
    r"Traceback|Exception ignored|exception was never retrieved|was never awaited"
    r"|Task was destroyed|ResourceWarning|Fatal Python error|Segmentation fault"
)

_SAID_SO = re.compile(r"warning: .*(is empty|lacks|is incomplete|covers|only)")
"""An answer that is incomplete, and says so, is no wrong one."""


@dataclass
class Verdict:
    """What was wrong with one run: pairs of a column and words. `met` if the fault came.

    `said` is how the disturbed commands ended, in their words.
    """

    name: str
    kind: str
    wrong: list[tuple[str, str]] = field(default_factory=list)
    met: bool = True
    said: list[str] = field(default_factory=list)

    def add(self, column: str, words: object) -> None:
        """Note something wrong."""
        self.wrong.append((column, str(words)))


def judge_end(
    verdict: Verdict,
    done: Done,
    *,
    allowed: Collection[int],
    may_be_silent: bool = False,
) -> None:
    """Look at exit code and stderr of a command that did not answer."""
    if found := _NOISE.search(done.stderr):
        verdict.add(TRACEBACK, f"{found[0]}: {done.stderr[-2000:]}")
    if done.status not in allowed:
        verdict.add(CODE, f"{done.status}, of {sorted(allowed)}: {done.stderr[-1500:]}")
    if done.status and not may_be_silent and not has_sentence(done):
        verdict.add(TRACEBACK, f"no sentence, exit {done.status}: {done.stderr[-1500:]!r}")


def has_sentence(done: Done) -> bool:
    """Tell whether stderr says in one sentence what happened."""
    said = [line for line in done.stderr.splitlines() if line.startswith("retrograde: ")]
    said = [line for line in said if "warning: " not in line]
    if done.status in ENDED:
        return any(ENDED[done.status] in line or "nterrupted" in line for line in said)
    return any(line.endswith((".", "?")) and len(line) < 500 for line in said)


def judge_answer(
    verdict: Verdict, place: Place, command: Command, done: Done, expected: object
) -> bool:
    """Compare the answer of a command that says it did its work."""
    if _NOISE.search(done.stderr):
        verdict.add(TRACEBACK, f"with exit 0: {done.stderr[-2000:]}")
    try:
        found = command.answer(place, done)
    except Exception as error:  # whatever is wrong with what it made
        verdict.add(ANSWER, f"{command.name} made what cannot be used: {error!r}")
        return False
    if found != expected and not _SAID_SO.search(done.stderr):
        verdict.add(ANSWER, f"{command.name}: {str(found)[:300]}, not {str(expected)[:300]}")
    return found == expected
