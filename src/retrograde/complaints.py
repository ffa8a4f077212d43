"""What Python has to say of what an error left behind: work, and objects half made."""

from __future__ import annotations

import logging
import sys


class Complaints(logging.Handler):
    """What asyncio complains of, which follows from an error where there was one.

    Pieces of work that an error left behind end with errors of their own, that nobody waits
    for any more. Without an error they are a defect of ours.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[logging.LogRecord] = []
        logging.getLogger("asyncio").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is logged."""
        self._kept.append(record)

    def tell(self) -> None:
        """Print it all on stderr."""
        if logging.lastResort:
            for record in self._kept:
                logging.lastResort.handle(record)
        self._kept.clear()


def hush() -> None:
    """Have half-made objects, a loop say, not complain as they go: what is wrong was said."""
    sys.unraisablehook = lambda _unraisable: None
