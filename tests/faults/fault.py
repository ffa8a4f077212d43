"""What is done to a command, and how it may end then."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.command import Done
from tests.faults.place import Place
from tests.faults.processes import HUNG, Running, Setting

ANY_FAILURE = frozenset((2, 3, 4))
"""Exit codes of something that went wrong outside of us."""


NO_MEMORY = (
    (1, "OpenBLAS error: Memory allocation still failed"),
    (127, "cannot allocate memory for thread-local data: ABORT"),
    (HUNG, "Exception ignored in thread started by"),
)
"""How libraries end, or stop, a process that has no memory for them.

numpy's OpenBLAS, the C library, and Python, whose Thread.start waits for a thread that had no
memory to say that it runs.
"""


@dataclass(frozen=True)
class Fault:
    """What is done to a command.

    `prepare` is done to the place before it starts, `act` while it runs (it returns whether
    there was anything to do it to), `lift` when it has ended. `allowed` are the exit codes
    it may end with, beside 0 with the right answer. `killed` is a signal that ends us for
    good, `ends` are those by libraries, which ask nobody: an exit code and what they say.
    `shortens` says that a recording under way may become a shorter one, `may_be_silent` that
    nothing need be said, `cuts_client` that the client of a server is what it befalls.
    """

    words: str
    allowed: Collection[int] = ANY_FAILURE
    setting: Callable[[Place], Setting] = lambda _: Setting()
    prepare: Callable[[Place], object] = lambda _: None
    act: Callable[[Running], bool] = lambda _: True
    lift: Callable[[Place], object] = lambda _: None
    met: Callable[[Place], bool] = lambda _: True
    killed: int = 0
    shortens: bool = False
    may_be_silent: bool = False
    cuts_client: bool = False
    ends: Collection[tuple[int, str]] = ()

    def took(self, done: Done) -> bool:
        """Whether it ended a command for good, before it could give anything back."""
        if self.killed and done.status == -self.killed:
            return True
        return any(done.status == code and words in done.stderr for code, words in self.ends)


@dataclass
class Trial:
    """A fault, the commands it befalls (side by side, if several), and the cache they find."""

    name: str
    kind: str
    commands: tuple[str, ...]
    cache: bool
    fault: Fault

    def __str__(self) -> str:
        cache = "with" if self.cache else "without"
        return f"{self.name}: {' + '.join(self.commands)}, {cache} cache, {self.fault.words}"
