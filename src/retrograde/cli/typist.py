"""Keys that are typed at the guest by themselves, when its console shows something.

A person types when the guest asks. A script that types at a time of day meets a guest that
has gone on, or is not there yet; one that waits for the words on the console does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from retrograde.errors import UsageError

_STEP: Final = re.compile(
    r'console:(?:"(?P<quoted>[^"]+)"|(?P<plain>[^"=][^=]*))=(?P<keys>.+)', re.DOTALL
)
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|.|$)", re.DOTALL)
_NAMED: Final = {"n": b"\n", "r": b"\r", "t": b"\t", "e": b"\x1b", "\\": b"\\"}


@dataclass(frozen=True)
class Step:
    """What is typed, when the console shows `awaited`."""

    awaited: bytes
    keys: bytes


def step_of(text: str) -> Step:
    r"""Return the step that is written `console:TEXT=KEYS`; raises UsageError.

    TEXT may be in double quotes. In KEYS \n, \r, \t, \e, \\ and \xNN stand for bytes.
    """
    found = _STEP.fullmatch(text)
    if not found:
        raise UsageError(
            f"{text[:80]!r} does not say what to type when.",
            r"Say console:TEXT=KEYS, as in 'console:login: =root\n'.",
        )
    return Step((found["quoted"] or found["plain"]).encode(), _bytes_of(found["keys"]))


def _bytes_of(keys: str) -> bytes:
    typed = b""
    at = 0
    for escape in _ESCAPE.finditer(keys):
        typed += keys[at : escape.start()].encode()
        at = escape.end()
        code = escape[1]
        if len(code) == 3:
            typed += bytes([int(code[1:], 16)])
        elif code in _NAMED:
            typed += _NAMED[code]
        else:
            raise UsageError(f"There is no key \\{code[:1]}.", r"Say \n, \r, \t, \e, \\ or \xNN.")
    return typed + keys[at:].encode()


class Script:
    """Steps in their order: each waits for its text behind the one before it."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self._seen = b""

    def answer(self, output: bytes) -> bytes:
        """Return what is to be typed now that the console has shown `output`, too."""
        self._seen += output
        typed = b""
        while self._steps and (at := self._seen.find(self._steps[0].awaited)) >= 0:
            step = self._steps.pop(0)
            self._seen = self._seen[at + len(step.awaited) :]
            typed += step.keys
        longest = len(self._steps[0].awaited) if self._steps else 1
        self._seen = self._seen[max(0, len(self._seen) - longest + 1) :]
        return typed

    def left(self) -> list[str]:
        """Return the texts that were not seen."""
        return [step.awaited.decode(errors="replace") for step in self._steps]
