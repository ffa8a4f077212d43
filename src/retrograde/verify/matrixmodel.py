"""The matrix's words: what a cell tries, what each check found, and the verdict. Pure."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from retrograde.version import __version__

FORMAT = 1
"""Number of what is tried and kept; results of another one are not used again."""

CHECKS = {
    "record": "recorded to its end",
    "replay": "replayed to the end of the log, with the same console",
    "checkpoint": "a checkpoint in the middle, loaded, leads on as the recording did",
    "start": "stepped forward and back from position 0, all registers compared",
    "middle": "stepped forward and back in the middle, across an interrupt where there is one",
    "breakpoint": "ran to a breakpoint, forward and back",
    "watchpoint": "ran to a memory access, forward and back",
    "exact": "random operations, each compared with a fresh replay",
}
"""What is tried, in order."""

Outcome = Literal["ok", "quirk", "no", "skipped"]
Verdict = Literal["works", "quirk", "fails", "absent"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A cell to try: one board of one QEMU, and the guest on it.

    `program` is QEMU's path, `arguments` the guest's QEMU arguments and `files` the paths
    among them. `done` is what its console says last, `start` what it says before it does what
    matters, in whose middle the trial looks, if that is not all. `seconds` is when to end a guest
    that does not end itself, `operations` the number of random ones. `memory` is an estimate, in
    bytes, of what the trial takes.
    """

    target: str
    board: str
    guest: str
    program: str
    version: str
    qemu_sha256: str
    arguments: tuple[str, ...]
    files: tuple[str, ...] = ()
    start: str = ""
    done: str = ""
    seconds: float | None = None
    operations: int = 40
    memory: int = 0

    @property
    def name(self) -> str:
        """`TARGET BOARD`, for people."""
        return f"{self.target} {self.board}"

    def key(self) -> str:
        """Return what names the result: the same for the same trial, wherever it is."""
        digests = {path: hashlib.sha256(Path(path).read_bytes()) for path in self.files}
        contents = {path: digest.hexdigest() for path, digest in digests.items()}
        words = [contents.get(word, word) for word in self.arguments]
        how = (self.start, self.done, self.seconds, self.operations)
        told = (FORMAT, __version__, self.qemu_sha256, self.target, self.board, words, how)
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:24]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What one of CHECKS found: one sentence, and the evidence of any length."""

    name: str
    outcome: Outcome
    text: str
    evidence: str = ""
    seconds: float = 0.0


class Cell(msgspec.Struct, kw_only=True):
    """The result of one trial. `end` is the recording's last position.

    `quirks` are those whose remedies were needed, `absent` says why nothing was tried.
    """

    target: str
    board: str
    guest: str = ""
    version: str = ""
    qemu_sha256: str = ""
    quirks: tuple[str, ...] = ()
    end: int = 0
    probe: bool = False
    checks: list[Check] = []
    absent: str = ""

    @property
    def verdict(self) -> Verdict:
        """What came of it in one word."""
        if self.absent:
            return "absent"
        if self.failure is not None:
            return "fails"
        return "quirk" if self.quirks else "works"

    @property
    def failure(self) -> Check | None:
        """The first check that failed."""
        return next((check for check in self.checks if check.outcome == "no"), None)

    @property
    def reverses(self) -> bool:
        """Whether it can be reversed in the middle of its run."""
        return any(check.name == "middle" and check.outcome == "ok" for check in self.checks)

    def outcome(self, name: str) -> Outcome | None:
        """Return what the check `name` found; None when it was not come to."""
        return next((check.outcome for check in self.checks if check.name == name), None)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.absent:
            return self.absent
        if self.failure is not None:
            return f"{self.failure.name}: {self.failure.text}"
        remedied = f"with {', '.join(self.quirks)}" if self.quirks else ""
        skipped = [check.name for check in self.checks if check.outcome == "skipped"]
        without = f"not tried: {', '.join(skipped)}" if skipped else ""
        return "; ".join(filter(None, (f"works {remedied}".rstrip(), without)))


class Began(msgspec.Struct, frozen=True, tag="began"):
    """A line of a trial's output: the check `name` began."""

    name: str


class Found(msgspec.Struct, frozen=True, tag="found"):
    """A line of a trial's output: a check ended."""

    check: Check


class Learned(msgspec.Struct, frozen=True, tag="learned"):
    """A line of a trial's output: facts of the recording."""

    end: int
    quirks: tuple[str, ...]
    probe: bool


Line = Began | Found | Learned
