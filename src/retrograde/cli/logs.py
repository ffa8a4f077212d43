"""What the layers below have to say beside their answer, said as commands do: once each.

They log it (Python's logging), because they do not know who asks.
"""

from __future__ import annotations

import logging


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Say what is logged, unless it was said."""
        from retrograde.cli.output import warn

        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            warn(text)


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


def show_warnings() -> None:
    """Have warnings of the package printed on stderr."""
    logging.getLogger("retrograde").addHandler(_Warnings())
