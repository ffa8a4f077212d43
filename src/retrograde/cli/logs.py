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


def show_warnings() -> None:
    """Have warnings of the package printed on stderr."""
    logging.getLogger("retrograde").addHandler(_Warnings())
