"""gdb's words for running programs, which mean something else on a recording or nothing.

Nothing can be started, killed or changed here, and what gdb would say of that sends its user
looking in the wrong place. Sourced by gdbinit.py; runs in gdb's own Python (3.7 and later).
"""

from __future__ import annotations

import gdb  # type: ignore[import-untyped]  # known only inside gdb

_INSTEAD = {
    "kill": "A recording is not killed. `retro start` goes to its start, `quit` leaves it.",
    "record": "All of it is recorded already: reverse-continue, reverse-stepi and the like work.",
    "generate-core-file": (
        "A recording is better than a core file: `retrograde pack` makes one file of it. "
        "`dump binary memory FILE START STOP` writes memory as it is here."
    ),
    "gcore": "See `generate-core-file`.",
    "attach": "This gdb has the whole machine; `info threads` has its processors.",
    "jump": "The past is read-only: `retro seek` goes elsewhere in it.",
    "return": "The past is read-only: `finish` and `retro finish-back` leave a function.",
    "signal": "The past is read-only: no signal can be given to it.",
    "queue-signal": "The past is read-only: no signal can be given to it.",
    "load": "The past is read-only: record another run of the new program.",
}

_DONE_BY = {
    "run": ("retro start", "continue"),
    "start": ("retro start", "tbreak {main}", "continue"),
    "starti": ("retro start",),
    "checkpoint": ("retro checkpoint",),
    "info checkpoints": ("retro bookmarks",),
}


class _Instead(gdb.Command):  # type: ignore[misc]
    """A word that cannot be done; says what can."""

    def __init__(self, name: str) -> None:
        self._text = _INSTEAD[name]
        self.__doc__ = f"Not of use on a recording. {self._text}"
        super().__init__(name, gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Say so."""
        del argument, from_tty
        raise gdb.GdbError(self._text)


class _DoneBy(gdb.Command):  # type: ignore[misc]
    """A word for what other commands do."""

    def __init__(self, name: str) -> None:
        self._lines = _DONE_BY[name]
        self.__doc__ = f"On a recording: {', '.join(f'`{line}`' for line in self._lines)}."
        super().__init__(name, gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Do those."""
        del argument
        self.dont_repeat()
        main = "start_kernel" if gdb.lookup_global_symbol("start_kernel") else "main"
        for line in self._lines:
            gdb.execute(line.format(main=main), from_tty)


class _Restart(gdb.Command):  # type: ignore[misc]
    """Go to a checkpoint: restart NUMBER."""

    def __init__(self) -> None:
        super().__init__("restart", gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Seek the bookmark of that number."""
        self.dont_repeat()
        if not argument.isdigit():
            raise gdb.GdbError("Say `restart NUMBER`; `retro bookmarks` lists them.")
        gdb.execute(f"retro seek checkpoint-{argument}", from_tty)


def teach() -> None:
    """Give gdb's words their meanings, and have writing refused for what it is."""
    for name in _INSTEAD:
        _Instead(name)
    for name in _DONE_BY:
        _DoneBy(name)
    _Restart()
    # "Writing to memory is not allowed" in place of "Cannot access memory at address 0x...".
    for what in ("may-write-memory", "may-write-registers", "may-call-functions"):
        gdb.execute(f"set {what} off", to_string=True)
