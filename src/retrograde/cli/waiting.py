"""What a long wait says where no terminal shows a bar: a line now and then."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Self

FIRST_SECONDS = 2.0
"""A shorter wait says nothing. Each pause after that is twice the one before."""


class Waiting:
    """Says what is waited for, as it was told last, until it is left. A context manager."""

    def __init__(self, say: Callable[[str], None], text: str, pause: float = FIRST_SECONDS) -> None:
        """Have `say` called with `text`, or what `tell` gets, after `pause` seconds."""
        self._say = say
        self._text = text
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def tell(self, text: str) -> None:
        """Say this from now on, nothing if it is empty."""
        self._text = text

    def __enter__(self) -> Self:
        with contextlib.suppress(RuntimeError):  # no more threads: it is silent then
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident:
            self._thread.join()

    def _talk(self) -> None:
        while not self._over.wait(self._pause):
            if self._text:
                self._say(f"{self._text} ...")
            self._pause *= 2
